//! The place of a piece of work in a distributed trace (W3C Trace Context, `traceparent`).
//!
//! The controller and the agent derive the ids below a host from the same names, so that the agent
//! can name a span that the controller sends later.

use std::fmt;
use std::str::FromStr;

/// A span, as others refer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
}

/// A text that is not a `traceparent`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "found {0:?}, expected a traceparent such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
)]
pub struct NotATraceParent(String);

impl TraceParent {
    /// The first span of a trace; ids of zeros alone are not allowed and become others.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8]) -> Self {
        let mut parent = TraceParent { trace_id, span_id };
        if trace_id == [0; 16] {
            parent.trace_id[15] = 1;
        }
        if span_id == [0; 8] {
            parent.span_id[7] = 1;
        }
        parent
    }

    /// The span of a part of this span's work. The same name is always the same span.
    pub fn child(&self, name: &str) -> Self {
        let bytes = self.span_id.iter().chain(name.as_bytes());
        // FNV-1a: an id has to differ from others, and to tell nothing.
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        TraceParent::new(self.trace_id, hash.to_be_bytes())
    }

    /// The trace's id in hexadecimal digits.
    pub fn trace_id(&self) -> String {
        hex(&self.trace_id)
    }

    /// The span's id in hexadecimal digits.
    pub fn span_id(&self) -> String {
        hex(&self.span_id)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads bytes in lower-case hexadecimal digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if text.len() != 2 * N || !text.chars().all(is_digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// The form in headers and in the environment; spans are always recorded.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", self.trace_id(), self.span_id())
    }
}

impl FromStr for TraceParent {
    type Err = NotATraceParent;

    fn from_str(text: &str) -> Result<Self, NotATraceParent> {
        let read = || {
            let parts: Vec<&str> = text.split('-').collect();
            let ["00", trace_id, span_id, flags] = parts.as_slice() else {
                return None;
            };
            bytes::<1>(flags)?;
            let (trace_id, span_id) = (bytes(trace_id)?, bytes(span_id)?);
            (trace_id != [0; 16] && span_id != [0; 8]).then_some(TraceParent { trace_id, span_id })
        };
        read().ok_or_else(|| NotATraceParent(text.chars().take(100).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_written_as_it_was_read_and_nothing_else_is_one() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent: TraceParent = text.parse().unwrap();
        assert_eq!(parent.to_string(), text);
        for wrong in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319é-b7ad6b716920333é-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nX=1",
        ] {
            assert!(wrong.parse::<TraceParent>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn children_differ_by_their_names_and_stay_in_their_trace() {
        let parent = TraceParent::new([1; 16], [0; 8]);
        let (one, other) = (parent.child("box1"), parent.child("box2"));
        assert_eq!(one, parent.child("box1"));
        assert!(one != other && one.trace_id() == other.trace_id());
        assert_eq!(parent.span_id(), "0000000000000001");
    }
}
