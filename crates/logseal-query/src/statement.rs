//! SQL text to one allowed statement.
//!
//! What is allowed is decided on the syntax tree, before any name is looked up: an allow list, so that a statement that a
//! later version of the parser learns is refused until somebody decides otherwise.

use std::ops::ControlFlow;

use datafusion::common::Column;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, Select, SelectItem, SetExpr, Statement as SqlStatement, Visit, VisitMut, Visitor, VisitorMut,
    visit_expressions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;

use crate::classify::classify;
use crate::error::{Position, QueryError};

/// Deepest nesting of the syntax tree, the parser's own default: machine-made SQL stays below it, and the parser's time
/// can grow exponentially with the depth of parenthesized joins.
const NESTING: usize = 50;

/// Longest chain of operators (`a OR b OR ..`) and most SELECTs of a query. They are not nesting for the parser, but the
/// planner's time grows with their square, and it cannot be interrupted: 15,000 additions keep it busy for a minute.
const CHAIN: usize = 1_000;

/// Parses `sql`, refuses all but one query, and names result columns by their text.
pub(crate) fn parse(sql: &str, max_bytes: usize) -> Result<Statement, QueryError> {
    if sql.len() > max_bytes {
        let message = format!("the query has {} bytes; `query.max_sql_bytes` allows {max_bytes}", sql.len());
        return Err(QueryError::Invalid { message, position: None });
    }
    let mut statements = DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect {})
        .with_recursion_limit(NESTING)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|e| {
            // The parser has no token there that it could place.
            classify(&e, 0).placed(|message| message.ends_with("found: EOF").then(|| end_of(sql)))
        })?;
    let mut statement = match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => statement,
        (None, _) => return Err(QueryError::Invalid { message: "the query is empty".into(), position: None }),
        (Some(_), _) => return Err(QueryError::Refused { what: "several statements in one query are".into() }),
    };
    check(&statement)?;
    name_columns(&mut statement);
    Ok(statement)
}

/// Whether `statement` is SHOW TABLES.
pub(crate) fn shows_tables(statement: &Statement) -> bool {
    matches!(statement, Statement::Statement(sql) if matches!(sql.as_ref(), SqlStatement::ShowTables { .. }))
}

/// Where `sql` names `column` first: DataFusion does not say it for every clause.
pub(crate) fn place_of(sql: &str, max_bytes: usize, column: &Column) -> Option<Position> {
    // Parsed anew, so that a query without an error does not pay for a copy of its syntax tree.
    let mut statement = &parse(sql, max_bytes).ok()?;
    while let Statement::Explain(explain) = statement {
        statement = &explain.statement;
    }
    let Statement::Statement(statement) = statement else { return None };
    let mut first: Option<(u64, u64)> = None;
    let _ = visit_expressions(statement.as_ref(), |expr| {
        let parts = match expr {
            Expr::Identifier(name) => std::slice::from_ref(name),
            Expr::CompoundIdentifier(parts) => parts,
            _ => return ControlFlow::<()>::Continue(()),
        };
        if let (Some(start), true) = (parts.first().map(|part| part.span.start), names(parts, column))
            // Line 0 is the parser's empty span.
            && start.line > 0
        {
            let place = (start.line, start.column);
            first = Some(first.map_or(place, |other| other.min(place)));
        }
        ControlFlow::Continue(())
    });
    first.map(|(line, column)| Position { line, column })
}

/// Whether the identifier `parts` is `column`; one that is given without its table may have got it from the planner.
fn names(parts: &[Ident], column: &Column) -> bool {
    let same = |part: &Ident, name: &str| match part.quote_style {
        Some(_) => part.value == name,
        None => part.value.eq_ignore_ascii_case(name),
    };
    match (parts, &column.relation) {
        ([.., table, name], Some(relation)) => same(table, relation.table()) && same(name, &column.name),
        ([.., name], _) => same(name, &column.name),
        ([], _) => false,
    }
}

/// The place behind the last character that is not a space.
fn end_of(sql: &str) -> Position {
    let text = sql.trim_end();
    let last = text.rsplit('\n').next().unwrap_or(text);
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    Position { line: count(text.matches('\n').count() + 1), column: count(last.chars().count() + 1) }
}

fn check(statement: &Statement) -> Result<(), QueryError> {
    match statement {
        Statement::Statement(sql) => check_sql(sql),
        Statement::Explain(explain) => check(&explain.statement),
        Statement::CreateExternalTable(_) => refuse("CREATE EXTERNAL TABLE"),
        Statement::CopyTo(_) => refuse("COPY"),
        Statement::Reset(_) => refuse("RESET"),
    }
}

fn check_sql(statement: &SqlStatement) -> Result<(), QueryError> {
    match statement {
        SqlStatement::Query(query) => check_query(query),
        SqlStatement::ShowTables { .. } | SqlStatement::ShowColumns { .. } | SqlStatement::ExplainTable { .. } => {
            Ok(())
        }
        SqlStatement::Explain { statement, .. } => check_sql(statement),
        other => {
            // The statement's first word, never more of its text: the rest may hold what nobody wants quoted.
            let text = other.to_string();
            refuse(text.split_whitespace().next().unwrap_or("this statement"))
        }
    }
}

/// A query can carry changes inside (`WITH x AS (INSERT ..)`, `SELECT .. INTO t`), and can be too much for the planner.
fn check_query(query: &Query) -> Result<(), QueryError> {
    match Visit::visit(query, &mut QueryCheck::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

#[derive(Default)]
struct QueryCheck {
    depth: usize,
    selects: usize,
}

impl Visitor for QueryCheck {
    type Break = QueryError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<QueryError> {
        ControlFlow::Break(refused(match query.body.as_ref() {
            SetExpr::Insert(_) => "INSERT",
            SetExpr::Update(_) => "UPDATE",
            SetExpr::Delete(_) => "DELETE",
            SetExpr::Merge(_) => "MERGE",
            _ => return ControlFlow::Continue(()),
        }))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<QueryError> {
        self.selects += 1;
        if select.into.is_some() {
            return ControlFlow::Break(refused("SELECT INTO"));
        }
        self.within_limits()
    }

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<QueryError> {
        self.depth += 1;
        self.within_limits()
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<QueryError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

impl QueryCheck {
    fn within_limits(&self) -> ControlFlow<QueryError> {
        let what = match self {
            Self { depth, .. } if *depth > CHAIN => "operators in a row",
            Self { selects, .. } if *selects > CHAIN => "SELECTs",
            _ => return ControlFlow::Continue(()),
        };
        let message = format!("the query has more than {CHAIN} {what}; a list of values is written `x IN (..)`");
        ControlFlow::Break(QueryError::Invalid { message, position: None })
    }
}

fn refuse(what: &str) -> Result<(), QueryError> {
    Err(refused(what))
}

fn refused(what: &str) -> QueryError {
    QueryError::Refused { what: format!("{what} is") }
}

/// Gives each result column that reads an attribute the name of its own text: `attributes['k']`, where DataFusion would
/// say `logs.attributes[k]`.
fn name_columns(statement: &mut Statement) {
    struct Names;
    impl VisitorMut for Names {
        type Break = ();
        fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            for item in &mut select.projection {
                if let SelectItem::UnnamedExpr(expr) = item
                    && reads_attribute(expr)
                {
                    *item = SelectItem::ExprWithAlias {
                        alias: Ident::with_quote('"', expr.to_string()),
                        expr: expr.clone(),
                    };
                }
            }
            ControlFlow::Continue(())
        }
    }
    match statement {
        Statement::Statement(sql) => {
            let _ = VisitMut::visit(sql.as_mut(), &mut Names);
        }
        Statement::Explain(explain) => name_columns(&mut explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {}
    }
}

fn reads_attribute(expr: &Expr) -> bool {
    let found = visit_expressions(expr, |e| match e {
        Expr::CompoundFieldAccess { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    found.is_break()
}
