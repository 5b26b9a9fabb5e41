//! Statements: the only interface between the code above and an engine.
//!
//! ```text
//! tx.query_one("SELECT name FROM applications WHERE id = ?1", (id,), |row| row.get("name"))
//! tx.execute("UPDATE applications SET name = :name WHERE id = :id", named! {":id": id, ":name": name})
//! ```
//!
//! A statement has one text for every engine: standard SQL if possible, `?1` or `:name` for
//! parameters. It is prepared once and cached.

use std::borrow::Cow;
use std::fmt;
use std::ops::ControlFlow;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection};

use super::value::{FromValue, ToValue, Unreadable, Value};

/// One transaction with the statements of a piece of work.
#[derive(Debug)]
pub struct Tx<'c> {
    connection: &'c Connection,
    is_readonly: bool,
}

/// The reason why a statement returned nothing usable.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// The row is damaged, not the database.
    #[error("{column}: {reason}")]
    Damaged { column: String, reason: Unreadable },
    #[error("the statement found no row where there is always one")]
    NoRow,
    #[error("cannot write a value as JSON")]
    Json(#[source] serde_json::Error),
    #[error("cannot write a number that is greater than any of the database")]
    TooLarge,
    #[error("the statement has no parameter {0}")]
    NoParameter(String),
    #[error("the statement has {expected} parameters, and {given} were given")]
    Parameters { expected: usize, given: usize },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The engine's error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct EngineError(#[from] rusqlite::Error);

impl SqlError {
    /// The contents of a row are inconsistent, although each column is readable.
    pub(crate) fn damaged(column: &str, reason: impl Into<String>) -> Self {
        SqlError::Damaged {
            column: column.to_owned(),
            reason: Unreadable(reason.into()),
        }
    }

    /// Whether it concerns a row's contents, and not the database as a whole.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, SqlError::Damaged { .. })
    }
}

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        SqlError::Engine(EngineError(error))
    }
}

/// A row that a statement found.
#[derive(Debug)]
pub struct Row<'r>(&'r rusqlite::Row<'r>);

/// Identifies a column by its name, or by its number from 0.
pub trait ColumnIndex: rusqlite::RowIndex + Copy {}
impl ColumnIndex for &str {}
impl ColumnIndex for usize {}

impl Row<'_> {
    /// Passes a text without a copy of it.
    pub fn text<T>(
        &self,
        column: impl ColumnIndex,
        read: impl FnOnce(&str) -> T,
    ) -> Result<T, SqlError> {
        match self.0.get_ref(column)? {
            ValueRef::Text(text) => match std::str::from_utf8(text) {
                Ok(text) => Ok(read(text)),
                Err(error) => Err(self.damaged(column, Unreadable(error.to_string()))),
            },
            _ => Err(self.damaged(column, Unreadable("found no text".into()))),
        }
    }

    fn damaged(&self, column: impl ColumnIndex, reason: Unreadable) -> SqlError {
        let number = column.idx(self.0.as_ref()).unwrap_or_default();
        let name = self.0.as_ref().column_name(number).unwrap_or("a column");
        SqlError::Damaged {
            column: name.to_owned(),
            reason,
        }
    }

    pub fn get<T: FromValue>(&self, column: impl ColumnIndex) -> Result<T, SqlError> {
        let value = match self.0.get_ref(column)? {
            ValueRef::Null => Ok(Value::Null),
            ValueRef::Integer(number) => Ok(Value::Integer(number)),
            ValueRef::Text(text) => std::str::from_utf8(text)
                .map(|text| Value::Text(text.into()))
                .map_err(|error| Unreadable(error.to_string())),
            ValueRef::Blob(bytes) => Ok(Value::Bytes(bytes.into())),
            ValueRef::Real(_) => Err(Unreadable("found a fraction, which no column has".into())),
        };
        value
            .and_then(T::from_value)
            .map_err(|reason| self.damaged(column, reason))
    }
}

impl Tx<'_> {
    pub(super) fn new(connection: &Connection) -> Tx<'_> {
        Tx {
            connection,
            is_readonly: false,
        }
    }

    pub(super) fn for_reading(connection: &Connection) -> Tx<'_> {
        Tx {
            connection,
            is_readonly: true,
        }
    }

    /// Whether the transaction is read-only.
    pub(crate) fn is_readonly(&self) -> bool {
        self.is_readonly
    }

    /// Runs a statement without results, and returns the number of rows that it wrote.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize, SqlError> {
        Ok(self.prepare(sql, &params)?.raw_execute()?)
    }

    /// Returns the row of a statement that always finds one.
    pub fn query_one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        self.query_opt(sql, params, read)?.ok_or(SqlError::NoRow)
    }

    /// Returns the first row of a statement, if there is one.
    pub fn query_opt<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<Option<T>, SqlError> {
        let mut statement = self.prepare(sql, &params)?;
        let mut rows = statement.raw_query();
        rows.next()?.map(|row| read(&Row(row))).transpose()
    }

    /// Returns all rows of a statement.
    pub fn query_all<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T, SqlError>,
    ) -> Result<Vec<T>, SqlError> {
        let mut all = Vec::new();
        self.query_while(sql, params, |row| {
            all.push(read(row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(all)
    }

    /// Passes rows one by one until `look` has seen enough of them.
    pub fn query_while(
        &self,
        sql: &str,
        params: impl Params,
        mut look: impl FnMut(&Row<'_>) -> Result<ControlFlow<()>, SqlError>,
    ) -> Result<(), SqlError> {
        let mut statement = self.prepare(sql, &params)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            if look(&Row(row))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Whether a statement finds a row.
    pub fn exists(&self, sql: &str, params: impl Params) -> Result<bool, SqlError> {
        Ok(self.query_opt(sql, params, |_| Ok(()))?.is_some())
    }

    /// Returns the engine's query plan of a statement, independent of its values.
    #[cfg(test)]
    pub(super) fn explain(&self, sql: &str) -> Result<Vec<String>, SqlError> {
        let mut statement = self
            .connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
        let mut rows = statement.raw_query();
        let mut steps = Vec::new();
        while let Some(row) = rows.next()? {
            steps.push(Row(row).get("detail")?);
        }
        Ok(steps)
    }

    fn prepare(&self, sql: &str, params: &impl Params) -> Result<CachedStatement<'_>, SqlError> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut binder = Binder {
            statement: &mut statement,
            given: 0,
        };
        params.bind(&mut binder)?;
        let (given, expected) = (binder.given, statement.parameter_count());
        if given == expected {
            Ok(statement)
        } else {
            Err(SqlError::Parameters { expected, given })
        }
    }
}

/// The values of a statement's parameters: a tuple or an array for `?1`, `?2` and so on, [`named!`]
/// for `:name`.
pub trait Params {
    fn bind(&self, binder: &mut Binder<'_, '_>) -> Result<(), SqlError>;
}

/// Binds values to a statement.
#[derive(Debug)]
pub struct Binder<'s, 'c> {
    statement: &'s mut rusqlite::Statement<'c>,
    given: usize,
}

impl Binder<'_, '_> {
    fn next(&mut self, value: &(impl ToValue + ?Sized)) -> Result<(), SqlError> {
        self.given += 1;
        // The count is compared afterwards, with a clearer error.
        if self.given <= self.statement.parameter_count() {
            self.statement
                .raw_bind_parameter(self.given, Parameter(value.to_value()?))?;
        }
        Ok(())
    }

    fn named(&mut self, name: &str, value: &dyn ToValue) -> Result<(), SqlError> {
        let number = self.statement.parameter_index(name)?;
        let number = number.ok_or_else(|| SqlError::NoParameter(name.to_owned()))?;
        self.given += 1;
        Ok(self
            .statement
            .raw_bind_parameter(number, Parameter(value.to_value()?))?)
    }
}

struct Parameter<'a>(Value<'a>);

impl rusqlite::ToSql for Parameter<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match &self.0 {
            Value::Null => ValueRef::Null,
            Value::Integer(number) => ValueRef::Integer(*number),
            Value::Text(text) => ValueRef::Text(Cow::as_ref(text).as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Params for () {
    fn bind(&self, _: &mut Binder<'_, '_>) -> Result<(), SqlError> {
        Ok(())
    }
}

impl<T: ToValue, const N: usize> Params for [T; N] {
    fn bind(&self, binder: &mut Binder<'_, '_>) -> Result<(), SqlError> {
        self.iter().try_for_each(|value| binder.next(value))
    }
}

macro_rules! tuples {
    ($($name:ident)*) => { tuples! { @ [$($name)*] } };
    (@ []) => {};
    (@ [$first:ident $($rest:ident)*]) => {
        impl<$first: ToValue, $($rest: ToValue),*> Params for ($first, $($rest,)*) {
            #[allow(non_snake_case, reason = "a value is called as its type")]
            fn bind(&self, binder: &mut Binder<'_, '_>) -> Result<(), SqlError> {
                let ($first, $($rest,)*) = self;
                binder.next($first)?;
                $(binder.next($rest)?;)*
                Ok(())
            }
        }
        tuples! { @ [$($rest)*] }
    };
}

tuples! { A B C D E F G H }

/// Parameters by their names, each `":name": value`; made by [`named!`].
#[derive(Clone, Copy)]
pub struct Named<'a>(pub &'a [(&'a str, &'a dyn ToValue)]);

impl fmt::Debug for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

impl Params for Named<'_> {
    fn bind(&self, binder: &mut Binder<'_, '_>) -> Result<(), SqlError> {
        self.0
            .iter()
            .try_for_each(|(name, value)| binder.named(name, *value))
    }
}

/// Parameters by their names.
macro_rules! named {
    ($($name:literal: $value:expr),* $(,)?) => {
        $crate::store::Named(&[$(($name, &$value as &dyn $crate::store::ToValue)),*])
    };
}
pub(crate) use named;
