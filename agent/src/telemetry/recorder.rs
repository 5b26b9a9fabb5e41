//! Turns every event into a [`Record`]: its own fields and those of its spans, where the innermost
//! overrides.

use std::time::SystemTime;

use codedeploy_support::fields::EachField;
use serde_json::Value;
use tracing::field::Field;
use tracing::span;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::record::{Fields, Record};

/// A layer that passes every record on.
pub(super) struct Recorder<W>(pub(super) W);

/// Reads the fields of a span or an event.
#[derive(Default)]
struct Reader {
    message: String,
    fields: Fields,
}

impl<S, W> Layer<S> for Recorder<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&Record) + 'static,
{
    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: Context<'_, S>,
    ) {
        let mut reader = Reader::default();
        attributes.record(&mut reader.visitor());
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(reader.fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let mut reader = Reader::default();
        values.record(&mut reader.visitor());
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            fields.extend(&reader.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                fields.extend(of_span);
            }
        }
        let mut reader = Reader {
            fields,
            ..Reader::default()
        };
        event.record(&mut reader.visitor());
        let (metadata, Reader { message, fields }) = (event.metadata(), reader);
        let target = metadata.target().into();
        (self.0)(&Record {
            time: SystemTime::now(),
            level: *metadata.level(),
            target,
            message,
            fields,
        });
    }
}

impl Reader {
    fn visitor(&mut self) -> EachField<impl FnMut(&Field, Value) + '_> {
        EachField(|field: &Field, value| self.take(field, value))
    }

    fn take(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            (name, value) => self.fields.set(name, value),
        }
    }
}
