//! The column formats of the planner's values.

use codedeploy_planner::deployment_state::Stage;
use codedeploy_planner::plan::Class;

use crate::store::{FromValue, SqlError, ToValue, Unreadable, Value};

/// A planner's value in a column of its own.
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

impl ToValue for Column<Class> {
    fn to_value(&self) -> Result<Value<'_>, SqlError> {
        let name = CLASSES
            .iter()
            .find(|(class, _)| *class == self.0)
            .map_or("", |(_, name)| name);
        Ok(Value::Text(name.into()))
    }
}

impl FromValue for Column<Class> {
    fn from_value(value: Value<'_>) -> Result<Self, Unreadable> {
        let text = match &value {
            Value::Text(text) => &**text,
            _ => "",
        };
        let found = CLASSES.iter().find(|(_, name)| *name == text);
        found
            .map(|(class, _)| Column(*class))
            .ok_or_else(|| Unreadable("it is no class of targets".into()))
    }
}

impl ToValue for Column<Stage> {
    fn to_value(&self) -> Result<Value<'_>, SqlError> {
        Ok(Value::Integer(match self.0 {
            Stage::Deploy => 0,
            Stage::Allow => 1,
            Stage::Block => 2,
        }))
    }
}

impl FromValue for Column<Stage> {
    fn from_value(value: Value<'_>) -> Result<Self, Unreadable> {
        match i64::from_value(value)? {
            0 => Ok(Column(Stage::Deploy)),
            1 => Ok(Column(Stage::Allow)),
            2 => Ok(Column(Stage::Block)),
            other => Err(Unreadable(format!("{other} is no stage"))),
        }
    }
}
