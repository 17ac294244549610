//! Identifiers without regard to case: `SELECT year` finds the column `Year` where exactly one column fits.
//!
//! Rewrites the syntax tree before planning: an unquoted name that fits exactly one column (or alias) of the statement
//! becomes that column's quoted name; a qualified one is looked up in its own table first. Names that fit several are
//! taken as they are spelled. Quoted names are left alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, Select, SelectItem, Statement,
    TableAlias, TableFactor, VisitMut, VisitorMut,
};

use arrow::datatypes::{DataType, Fields, SchemaRef};

/// Rewrites the statement's unquoted column names. `schemas` holds each table that the statement reads.
pub(crate) fn match_case(statement: &mut Statement, schemas: &HashMap<String, SchemaRef>) {
    let mut names = Names::default();
    for schema in schemas.values() {
        names.add_fields(schema.fields());
    }
    let mut collector = Collector { names: &mut names, schemas };
    let _ = statement.visit(&mut collector);
    let _ = statement.visit(&mut Rewriter { names: &names });
}

/// Every spelling of a name, by its lower case.
#[derive(Default)]
struct Names {
    columns: BTreeMap<String, BTreeSet<String>>,
    /// The columns of each relation, by the alias or table name that the statement uses.
    relations: HashMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl Names {
    fn add(&mut self, name: &str) {
        self.columns.entry(name.to_lowercase()).or_default().insert(name.to_owned());
    }

    fn add_fields(&mut self, fields: &Fields) {
        for field in fields {
            self.add(field.name());
            self.add_nested(field.data_type());
        }
    }

    fn add_nested(&mut self, data_type: &DataType) {
        match data_type {
            DataType::Struct(fields) => self.add_fields(fields),
            DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
                self.add_nested(field.data_type());
            }
            _ => {}
        }
    }

    fn add_relation(&mut self, alias: &str, schema: &SchemaRef) {
        let columns = self.relations.entry(alias.to_owned()).or_default();
        for field in schema.fields() {
            columns.entry(field.name().to_lowercase()).or_default().insert(field.name().clone());
        }
    }

    fn rewrite(&self, ident: &mut Ident, relation: Option<&str>) {
        if ident.quote_style.is_some() {
            return;
        }
        let lower = ident.value.to_lowercase();
        let own = relation.and_then(|r| self.relations.get(r)).and_then(|columns| columns.get(&lower));
        let Some(spellings) = own.or_else(|| self.columns.get(&lower)) else { return };
        let exact = spellings.get(&ident.value);
        let only = if spellings.len() == 1 { spellings.first() } else { None };
        if let Some(name) = exact.or(only) {
            ident.value.clone_from(name);
            ident.quote_style = Some('"');
        }
    }
}

fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn object_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Some(normal(ident)),
        _ => None,
    }
}

/// Gathers aliases: they are names like any column.
struct Collector<'a> {
    names: &'a mut Names,
    schemas: &'a HashMap<String, SchemaRef>,
}

impl Collector<'_> {
    fn table_alias(&mut self, alias: &TableAlias) {
        for column in &alias.columns {
            self.names.add(&column.name.value);
        }
    }
}

impl VisitorMut for Collector<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|w| &w.cte_tables) {
            self.table_alias(&cte.alias);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.names.add(&alias.value);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, alias, .. } => {
                let table = object_name(name);
                if let Some(schema) = table.as_ref().and_then(|t| self.schemas.get(t)) {
                    let relation = alias.as_ref().map(|a| normal(&a.name)).or(table).unwrap_or_default();
                    self.names.add_relation(&relation, schema);
                }
                if let Some(alias) = alias {
                    self.table_alias(alias);
                }
            }
            TableFactor::Derived { alias: Some(alias), .. } | TableFactor::UNNEST { alias: Some(alias), .. } => {
                self.table_alias(alias);
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

struct Rewriter<'a> {
    names: &'a Names,
}

impl Rewriter<'_> {
    fn table_alias(&self, alias: &mut TableAlias) {
        for column in &mut alias.columns {
            self.names.rewrite(&mut column.name, None);
        }
    }
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for cte in query.with.iter_mut().flat_map(|w| &mut w.cte_tables) {
            self.table_alias(&mut cte.alias);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::ExprWithAlias { alias, .. } = item {
                self.names.rewrite(alias, None);
            }
        }
        for join in select.from.iter_mut().flat_map(|f| &mut f.joins) {
            if let Some(JoinConstraint::Using(columns)) = constraint(&mut join.join_operator) {
                for column in columns {
                    if let [ObjectNamePart::Identifier(ident)] = column.0.as_mut_slice() {
                        self.names.rewrite(ident, None);
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } = factor
        {
            self.table_alias(alias);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => self.names.rewrite(ident, None),
            Expr::CompoundIdentifier(parts) => {
                let relation = parts.first().map(normal).filter(|r| self.names.relations.contains_key(r));
                let skip = usize::from(relation.is_some());
                for part in parts.iter_mut().skip(skip) {
                    self.names.rewrite(part, relation.as_deref());
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c)
        | JoinOperator::Semi(c)
        | JoinOperator::LeftSemi(c)
        | JoinOperator::RightSemi(c)
        | JoinOperator::Anti(c)
        | JoinOperator::LeftAnti(c)
        | JoinOperator::RightAnti(c) => Some(c),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn rewritten(sql: &str) -> String {
        let schema = |names: &[&str]| {
            Arc::new(Schema::new(names.iter().map(|n| Field::new(*n, DataType::Utf8, true)).collect::<Vec<_>>()))
        };
        let tables =
            [("cars".to_owned(), schema(&["Name", "Year", "a", "A"])), ("films".to_owned(), schema(&["year"]))];
        let mut statement = crate::parse::parse(sql).expect(sql);
        match_case(&mut statement, &HashMap::from(tables));
        statement.to_string()
    }

    #[test]
    fn exactly_one_column_fits() {
        assert_eq!(rewritten("SELECT name FROM cars"), r#"SELECT "Name" FROM cars"#);
        assert_eq!(rewritten(r#"SELECT "name" FROM cars"#), r#"SELECT "name" FROM cars"#);
        assert_eq!(rewritten("SELECT a, A FROM cars"), r#"SELECT "a", "A" FROM cars"#);
        assert_eq!(
            rewritten("SELECT c.YEAR, films.YEAR FROM cars c, films"),
            r#"SELECT c."Year", films."year" FROM cars c, films"#
        );
    }

    #[test]
    fn aliases_are_names_too() {
        assert_eq!(
            rewritten("SELECT count(*) AS Total FROM cars ORDER BY total"),
            r#"SELECT count(*) AS "Total" FROM cars ORDER BY "Total""#
        );
        assert_eq!(
            rewritten("SELECT 1 FROM cars JOIN cars AS d USING (NAME)"),
            r#"SELECT 1 FROM cars JOIN cars AS d USING("Name")"#
        );
    }
}
