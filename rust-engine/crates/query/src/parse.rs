//! From SQL text to one read-only statement, within bounds that keep the parser and planner from running away.

use datafusion::sql::parser::{DFParserBuilder, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{SetExpr, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use quern_core::{EngineError, Reason, Result};

use crate::errors;
use crate::limits::{MAX_NESTING, MAX_OPERATORS, MAX_SQL_BYTES, MAX_TOKENS};

/// Parses one read-only query.
pub(crate) fn parse(sql: &str) -> Result<Statement> {
    if sql.len() > MAX_SQL_BYTES {
        let message = format!("the SQL text has {} bytes; at most 256 KiB ({MAX_SQL_BYTES}) are taken", sql.len());
        return Err(EngineError::new(Reason::SqlTooLarge, message));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()
        .map_err(|e| errors::syntax(sql, &e.to_string()))?;
    check_complexity(tokens.iter().map(|t| &t.token))?;
    let mut statements = DFParserBuilder::new(tokens)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(MAX_NESTING)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|e| errors::planning(sql, &e))?;
    match (statements.pop_front(), statements.is_empty()) {
        (None, _) => Err(EngineError::new(Reason::SqlSyntax, "there is no statement; try `SELECT 1`")),
        (Some(_), false) => Err(not_allowed("more than one statement; send them one by one")),
        (Some(statement), true) => read_only(statement),
    }
}

fn read_only(statement: DfStatement) -> Result<Statement> {
    let DfStatement::Statement(statement) = statement else {
        return Err(not_allowed("only one read-only query (SELECT, WITH, VALUES) is taken"));
    };
    match *statement {
        Statement::Query(query) if is_select(&query.body) => Ok(Statement::Query(query)),
        Statement::Explain { .. } | Statement::ExplainTable { .. } => {
            Err(not_allowed("plans are not shown; `GET /v1/tables/{table}` describes a table"))
        }
        Statement::ShowTables { .. } | Statement::ShowColumns { .. } | Statement::ShowVariable { .. } => {
            Err(not_allowed("`GET /v1/tables` lists the tables"))
        }
        _ => Err(not_allowed("only one read-only query (SELECT, WITH, VALUES) is taken")),
    }
}

/// A query may hide an INSERT or UPDATE in its body (`WITH … INSERT`).
fn is_select(body: &SetExpr) -> bool {
    match body {
        SetExpr::Select(select) => select.into.is_none(),
        SetExpr::Query(query) => is_select(&query.body),
        SetExpr::SetOperation { left, right, .. } => is_select(left) && is_select(right),
        SetExpr::Values(_) | SetExpr::Table(_) => true,
        _ => false,
    }
}

pub(crate) fn not_allowed(why: &str) -> EngineError {
    EngineError::new(Reason::StatementNotAllowed, why)
}

fn check_complexity<'a>(tokens: impl Iterator<Item = &'a Token>) -> Result<()> {
    let (mut count, mut operators, mut depth) = (0usize, 0usize, 0usize);
    for token in tokens {
        count += 1;
        match token {
            Token::Whitespace(_) => count -= 1,
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            Token::Comma | Token::Period | Token::SemiColon | Token::Number(..) | Token::SingleQuotedString(_) => {}
            Token::Word(word) => operators += usize::from(is_operator(&word.value)),
            _ => operators += 1,
        }
        if count > MAX_TOKENS || operators > MAX_OPERATORS || depth > MAX_NESTING {
            return Err(EngineError::new(
                Reason::SqlTooComplex,
                format!(
                    "the statement is too complex: at most {MAX_TOKENS} tokens, {MAX_OPERATORS} operators and \
                     {MAX_NESTING} levels of parentheses are taken; join a VALUES list instead of a long chain"
                ),
            ));
        }
    }
    Ok(())
}

fn is_operator(word: &str) -> bool {
    const OPERATORS: &[&str] =
        &["AND", "OR", "NOT", "LIKE", "ILIKE", "IS", "BETWEEN", "CASE", "WHEN", "UNION", "EXCEPT", "INTERSECT", "JOIN"];
    OPERATORS.iter().any(|o| o.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(sql: &str) -> Reason {
        parse(sql).expect_err(sql).reason
    }

    #[test]
    fn takes_one_read_only_query() {
        for sql in
            ["SELECT 1", "select 1;", "WITH a AS (SELECT 1) SELECT * FROM a", "VALUES (1)", "(SELECT 1) UNION SELECT 2"]
        {
            parse(sql).expect(sql);
        }
    }

    #[test]
    fn refuses_everything_else() {
        for sql in [
            "INSERT INTO t VALUES (1)",
            "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
            "COPY t TO 'x.csv'",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "CREATE TABLE t AS SELECT 1",
            "SET datafusion.execution.batch_size = 1",
            "PREPARE p AS SELECT 1",
            "DROP TABLE t",
            "SELECT 1; SELECT 2",
            "EXPLAIN SELECT 1",
            "SHOW TABLES",
            "SELECT 1 INTO t",
        ] {
            assert_eq!(reason(sql), Reason::StatementNotAllowed, "{sql}");
        }
    }

    #[test]
    fn bounds_hold() {
        assert_eq!(reason(&format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000))), Reason::SqlTooComplex);
        assert_eq!(reason(&format!("SELECT 1{}", "+1".repeat(50_000))), Reason::SqlTooComplex);
        assert_eq!(reason(&" ".repeat(MAX_SQL_BYTES + 1)), Reason::SqlTooLarge);
        assert_eq!(reason("  "), Reason::SqlSyntax);
    }

    #[test]
    fn syntax_errors_say_where() {
        let error = parse("SELECT a\nFORM t x y").expect_err("does not parse");
        assert_eq!(error.reason, Reason::SqlSyntax);
        assert_eq!(error.metadata.get("line").map(String::as_str), Some("2"), "{error:?}");
        assert!(error.message.contains("line 2"), "{error}");
    }
}
