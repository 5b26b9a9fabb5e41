//! How the planner's values are written in a row.

use codedeploy_planner::deployment_state::Stage;
use codedeploy_planner::plan::Class;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

/// A value of the planner's in a column of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column<T>(pub(crate) T);

const CLASSES: [(Class, &str); 6] = [
    (Class::Waiting, "waiting"),
    (Class::Offered, "offered"),
    (Class::Performing, "performing"),
    (Class::Succeeded, "succeeded"),
    (Class::Failed, "failed"),
    (Class::Skipped, "skipped"),
];

impl ToSql for Column<Class> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let name = CLASSES.iter().find(|(class, _)| *class == self.0).map_or("", |(_, name)| name);
        Ok(name.into())
    }
}

impl FromSql for Column<Class> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        let found = CLASSES.iter().find(|(_, name)| *name == text);
        found.map(|(class, _)| Column(*class)).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for Column<Stage> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Stage::Deploy => 0_i64.into(),
            Stage::Allow => 1_i64.into(),
            Stage::Block => 2_i64.into(),
        })
    }
}

impl FromSql for Column<Stage> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Column(Stage::Deploy)),
            1 => Ok(Column(Stage::Allow)),
            2 => Ok(Column(Stage::Block)),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}
