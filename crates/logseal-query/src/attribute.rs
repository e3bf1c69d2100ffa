//! `attributes['k']` for keys that no record has.
//!
//! DataFusion refuses a field that a struct does not have. Logs are not like that: whether somebody sent the key is a
//! matter of the data, so an unknown key reads as NULL.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannerResult, RawAggregateExpr, RawBinaryExpr, RawFieldAccessExpr, RawWindowExpr,
};
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Aggregates that refuse an untyped NULL.
const NUMERIC: [&str; 9] =
    ["sum", "avg", "median", "approx_median", "stddev", "stddev_pop", "var", "var_pop", "approx_percentile_cont"];

/// Plans the access to a key that the struct does not have as NULL, and leaves all others to DataFusion.
#[derive(Debug)]
pub(crate) struct UnknownKeyPlanner;

impl ExprPlanner for UnknownKeyPlanner {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let GetFieldAccess::NamedStructField { name } = &access.field_access else {
            return Ok(PlannerResult::Original(access));
        };
        let known = match access.expr.get_type(schema)? {
            DataType::Struct(fields) => {
                name.try_as_str().flatten().is_some_and(|key| fields.iter().any(|field| field.name() == key))
            }
            // A container without any attribute is a column of type Null (see `table`).
            DataType::Null => false,
            _ => true,
        };
        if known {
            return Ok(PlannerResult::Original(access));
        }
        // Untyped, so that it fits wherever a value of any type would.
        Ok(PlannerResult::Planned(Expr::Literal(ScalarValue::Null, None)))
    }

    /// Of two untyped NULLs some operators cannot infer a type.
    fn plan_binary_op(&self, mut binary: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if let (Expr::Literal(left @ ScalarValue::Null, _), Expr::Literal(ScalarValue::Null, _)) =
            (&mut binary.left, &binary.right)
        {
            match binary.op {
                BinaryOperator::StringConcat => *left = ScalarValue::Utf8(None),
                BinaryOperator::Plus
                | BinaryOperator::Minus
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Modulo => *left = ScalarValue::Float64(None),
                _ => {}
            }
        }
        Ok(PlannerResult::Original(binary))
    }

    fn plan_aggregate(&self, mut aggregate: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        type_null(aggregate.func.name(), &mut aggregate.args);
        Ok(PlannerResult::Original(aggregate))
    }

    fn plan_window(&self, mut window: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        type_null(window.func_def.name(), &mut window.args);
        Ok(PlannerResult::Original(window))
    }
}

fn type_null(function: &str, arguments: &mut [Expr]) {
    if let Some(Expr::Literal(value @ ScalarValue::Null, _)) = arguments.first_mut()
        && NUMERIC.contains(&function)
    {
        *value = ScalarValue::Float64(None);
    }
}
