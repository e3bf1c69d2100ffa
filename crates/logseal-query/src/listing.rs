//! SHOW TABLES and DESCRIBE as their reader needs them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::error::Result;
use datafusion::logical_expr::{DescribeTable, LogicalPlan, LogicalPlanBuilder, col, lit};

use crate::session::SCHEMA;

/// SHOW TABLES of `plan`: DataFusion lists its own views too, and in the order of a hash map.
pub(crate) fn own_tables(plan: LogicalPlan) -> Result<LogicalPlan> {
    LogicalPlanBuilder::from(plan)
        .filter(col("table_schema").eq(lit(SCHEMA)))?
        .sort([col("table_name").sort(true, false)])?
        .build()
}

/// `plan`, and if it is a DESCRIBE, then without the metadata that DataFusion writes into the types of structs.
pub(crate) fn plain_types(plan: LogicalPlan) -> LogicalPlan {
    match plan {
        LogicalPlan::DescribeTable(DescribeTable { schema, output_schema }) => {
            let fields: Vec<Field> = schema.fields().iter().map(|field| plain(field)).collect();
            LogicalPlan::DescribeTable(DescribeTable { schema: Arc::new(Schema::new(fields)), output_schema })
        }
        other => other,
    }
}

fn plain(field: &Field) -> Field {
    let field = field.clone().with_metadata(HashMap::new());
    match field.data_type() {
        DataType::Struct(children) => {
            let children = children.iter().map(|child| plain(child)).collect();
            field.with_data_type(DataType::Struct(children))
        }
        _ => field,
    }
}
