//! Metrics with their descriptions: a metric is declared once, for its measurements, for its text
//! and for the page that lists it.
//!
//! The format is Prometheus's text format 0.0.4. Label values are fixed words, or names that an
//! operator chose; an id is never one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{
    EncodeLabel as _, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder, prometheus_text,
};
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of buckets in seconds, for things that a computer does.
pub const QUICK: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// Upper bounds of buckets in seconds, for things that people wait for.
pub const SLOW: &[f64] = &[
    1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 28_800.0, 86_400.0,
    604_800.0,
];

/// The value of a label.
pub type Value = Cow<'static, str>;

/// A metric, as documentation lists it.
#[derive(Debug, Clone)]
pub struct Description {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: Vec<&'static str>,
    /// Its meaning, without a full stop at its end.
    pub meaning: &'static str,
}

/// The declared metrics of one program.
#[derive(Debug)]
pub struct Catalogue {
    prefix: &'static str,
    registry: Registry,
    descriptions: Vec<Description>,
}

impl Catalogue {
    /// Returns an empty catalogue; the names of its metrics begin with `prefix` and an underscore.
    pub fn new(prefix: &'static str) -> Self {
        Catalogue {
            prefix,
            registry: Registry::with_prefix(prefix),
            descriptions: Vec::new(),
        }
    }

    /// Declares a counter. Its name gets the suffix `_total`.
    pub fn counter(&mut self, name: &'static str, meaning: &'static str) -> Counter {
        self.declare(name, &[], meaning, Counter::default())
    }

    /// Declares a counter with labels. Its name gets the suffix `_total`.
    pub fn counters<const N: usize>(
        &mut self,
        name: &'static str,
        labels: [&'static str; N],
        meaning: &'static str,
    ) -> Labelled<Counter, N> {
        let counters = Labelled::new(labels, Make::Default(Counter::default));
        self.declare(name, &labels, meaning, counters)
    }

    pub fn gauge(&mut self, name: &'static str, meaning: &'static str) -> Gauge {
        self.declare(name, &[], meaning, Gauge::default())
    }

    /// Declares a gauge with labels; without labels, one that can be absent.
    pub fn gauges<const N: usize>(
        &mut self,
        name: &'static str,
        labels: [&'static str; N],
        meaning: &'static str,
    ) -> Labelled<Gauge, N> {
        let gauges = Labelled::new(labels, Make::Default(Gauge::default));
        self.declare(name, &labels, meaning, gauges)
    }

    pub fn histogram(
        &mut self,
        name: &'static str,
        buckets: &'static [f64],
        meaning: &'static str,
    ) -> Histogram {
        self.declare(name, &[], meaning, of(buckets))
    }

    pub fn histograms<const N: usize>(
        &mut self,
        name: &'static str,
        labels: [&'static str; N],
        buckets: &'static [f64],
        meaning: &'static str,
    ) -> Labelled<Histogram, N> {
        let histograms = Labelled::new(labels, Make::Of(of, buckets));
        self.declare(name, &labels, meaning, histograms)
    }

    fn declare<M: Metric>(
        &mut self,
        name: &'static str,
        labels: &[&'static str],
        meaning: &'static str,
        metric: M,
    ) -> M {
        let (kind, suffix) = match metric.metric_type() {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Histogram => ("histogram", ""),
            _ => ("gauge", ""),
        };
        self.descriptions.push(Description {
            name: format!("{}_{name}{suffix}", self.prefix),
            kind,
            labels: labels.to_vec(),
            meaning,
        });
        self.registry.register(name, meaning, metric.clone());
        metric
    }

    /// The declared metrics, in the order of their declarations.
    pub fn descriptions(&self) -> &[Description] {
        &self.descriptions
    }

    /// Returns the present values of all metrics.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = prometheus_text::encode(&mut text, &self.registry);
        text
    }
}

/// A metric that can be declared.
trait Metric: EncodeMetric + Clone + fmt::Debug + Send + Sync + 'static {}

impl<M: EncodeMetric + Clone + fmt::Debug + Send + Sync + 'static> Metric for M {}

fn of(buckets: &'static [f64]) -> Histogram {
    Histogram::new(buckets.iter().copied())
}

/// Makes the metric of new label values.
#[derive(Debug, Clone, Copy)]
enum Make<M> {
    Default(fn() -> M),
    Of(fn(&'static [f64]) -> M, &'static [f64]),
}

/// A metric for each combination of label values that was used. Clones share them.
#[derive(Debug, Clone)]
pub struct Labelled<M, const N: usize> {
    names: [&'static str; N],
    make: Make<M>,
    by_values: Arc<RwLock<BTreeMap<[Value; N], M>>>,
}

impl<M: Clone, const N: usize> Labelled<M, N> {
    fn new(names: [&'static str; N], make: Make<M>) -> Self {
        Labelled {
            names,
            make,
            by_values: Arc::default(),
        }
    }

    /// Returns the metric of these label values, which are in the order of the labels.
    pub fn with(&self, values: [impl Into<Value>; N]) -> M {
        let values = values.map(Into::into);
        let known = self
            .by_values
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(metric) = known.get(&values) {
            return metric.clone();
        }
        drop(known);
        let make = || match self.make {
            Make::Default(make) => make(),
            Make::Of(make, buckets) => make(buckets),
        };
        let mut known = self
            .by_values
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        known.entry(values).or_insert_with(make).clone()
    }

    /// Drops the metrics whose label values `keep` rejects.
    pub fn retain(&self, keep: impl Fn(&[Value; N]) -> bool) {
        let mut known = self
            .by_values
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        known.retain(|values, _| keep(values));
    }

    /// Drops all metrics.
    pub fn clear(&self) {
        self.retain(|_| false);
    }
}

impl<M: EncodeMetric + TypedMetric + fmt::Debug, const N: usize> EncodeMetric for Labelled<M, N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let known = self
            .by_values
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        for (values, metric) in known.iter() {
            let labels = Pairs {
                names: &self.names,
                values,
            };
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }

    fn is_empty(&self) -> bool {
        let known = self
            .by_values
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        known.is_empty()
    }
}

struct Pairs<'a> {
    names: &'a [&'static str],
    values: &'a [Value],
}

impl EncodeLabelSet for Pairs<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.names.iter().zip(self.values) {
            (*name, value.as_ref()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// Formats descriptions as a table of Markdown.
pub fn table(descriptions: &[Description]) -> String {
    let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for Description {
        name,
        kind,
        labels,
        meaning,
    } in descriptions
    {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() {
            "–".to_owned()
        } else {
            labels.join(", ")
        };
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {meaning} |");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_only_used_ones_appear() {
        let mut catalogue = Catalogue::new("shop");
        let sales = catalogue.counters("sales", ["article"], "Articles sold");
        let time = catalogue.histogram("wait_seconds", &[1.0], "Time in the queue");
        assert!(!catalogue.text().contains("shop_sales"));
        sales.with(["a \"b\"\n\\"]).inc();
        sales.with(["gone"]).inc();
        sales.retain(|[article]| article != "gone");
        time.observe(0.5);
        let text = catalogue.text();
        assert!(
            text.starts_with(
                "# HELP shop_sales_total Articles sold.\n# TYPE shop_sales_total counter\n\
                 shop_sales_total{article=\"a \\\"b\\\"\\n\\\\\"} 1\n"
            ) && text.contains("shop_wait_seconds_bucket{le=\"1\"} 1\n"),
            "{text}"
        );
        assert!(!text.contains("gone"), "{text}");
        let table = table(catalogue.descriptions());
        assert!(
            table.contains("| `shop_sales_total` | counter | `article` | Articles sold |")
                && table.contains("| `shop_wait_seconds` | histogram | – |"),
            "{table}"
        );
    }
}
