//! "Did you mean …?": the nearest real name to one that does not exist.

/// The candidate nearest to `name` without regard to case, if one is near enough to be a likely slip.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&wanted, &c.to_lowercase()), c))
        .filter(|(distance, c)| *distance <= 1 + c.len().max(wanted.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// The first few of `names` as a list for a message: `a, b, c and 7 more`.
pub fn some_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 10;
    let all: Vec<&str> = names.into_iter().collect();
    let shown: Vec<String> = all.iter().take(SHOWN).map(|n| format!("`{n}`")).collect();
    match all.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_and_leaves_strangers() {
        let columns = ["delay", "origin", "destination"];
        assert_eq!(nearest("delya", columns), Some("delay"));
        assert_eq!(nearest("ORIGIN", columns), Some("origin"));
        assert_eq!(nearest("temperature", columns), None);
    }

    #[test]
    fn lists_are_cut() {
        let names: Vec<String> = (0..12).map(|i| format!("c{i}")).collect();
        assert!(some_of(names.iter().map(String::as_str)).ends_with("`c9` and 2 more"));
        assert_eq!(some_of(["a"]), "`a`");
    }
}
