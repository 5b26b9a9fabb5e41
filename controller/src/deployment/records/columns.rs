//! How the planner's values are written in a row.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::deployment::plan::Class;
use crate::deployment::progress::Stage;

const CLASSES: [(Class, &str); 6] = [
    (Class::Waiting, "waiting"),
    (Class::Offered, "offered"),
    (Class::Performing, "performing"),
    (Class::Succeeded, "succeeded"),
    (Class::Failed, "failed"),
    (Class::Skipped, "skipped"),
];

impl ToSql for Class {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let name = CLASSES.iter().find(|(class, _)| class == self).map_or("", |(_, name)| name);
        Ok(name.into())
    }
}

impl FromSql for Class {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let text = value.as_str()?;
        let found = CLASSES.iter().find(|(_, name)| *name == text);
        found.map(|(class, _)| *class).ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for Stage {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Stage::Deploy => 0_i64.into(),
            Stage::Allow => 1_i64.into(),
            Stage::Block => 2_i64.into(),
        })
    }
}

impl FromSql for Stage {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_i64()? {
            0 => Ok(Stage::Deploy),
            1 => Ok(Stage::Allow),
            2 => Ok(Stage::Block),
            other => Err(FromSqlError::OutOfRange(other)),
        }
    }
}
