//! How a file's or folder's name becomes a table's name.

/// The table name of a stem: lower case, every run of other characters than a–z and 0–9 turned into one `_`.
///
/// `flights-3m` is `flights_3m`; `Größe (cm)` is `gr_e_cm_`. Never empty for a non-empty stem.
pub fn table_name(stem: &str) -> String {
    let mut name = String::with_capacity(stem.len());
    for c in stem.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            name.push(c);
        } else if !name.ends_with('_') {
            name.push('_');
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::table_name;

    #[test]
    fn follows_the_rule() {
        for (stem, name) in [
            ("flights-3m", "flights_3m"),
            ("Cars", "cars"),
            ("a b.c", "a_b_c"),
            ("a__b", "a_b"),
            ("Größe (cm)", "gr_e_cm_"),
            ("\"quoted\"", "_quoted_"),
            ("データ", "_"),
            ("2024", "2024"),
        ] {
            assert_eq!(table_name(stem), name);
        }
    }
}
