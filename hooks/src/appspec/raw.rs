//! Turns YAML text into a small tree that keeps positions.
//!
//! Nodes are shared, so an alias costs nothing here. But every walk over the tree visits an aliased
//! node again. So the nodes that aliases repeat are counted, and a file that repeats too many is
//! rejected before anything walks it.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::relaxed::Relaxed;
use super::{Finding, MAX_BYTES, Position};

/// The deepest nesting of collections; an AppSpec needs five levels.
const MAX_DEPTH: usize = 64;

/// The number of nodes that all aliases of a file may repeat together.
const MAX_ALIASED: usize = 100_000;

/// A value and its position. The position of an alias is that of its anchor.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) position: Position,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// `plain` means that the text is neither quoted, nor a block, nor tagged as a string, so that
    /// it may stand for something else, such as a number.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Rc<Node>>),
    /// In the order of the file, including repeated keys. Merge keys (`<<`) are replaced by the
    /// mappings that they merge.
    Mapping(Vec<Pair>),
}

/// A key and its value.
pub(super) type Pair = (Rc<Node>, Rc<Node>);

/// The first document of a file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) root: Rc<Node>,
    pub(super) warnings: Vec<Finding>,
}

impl Node {
    /// Whether this is YAML's null: empty, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(text.as_str(), "" | "~") || text.eq_ignore_ascii_case("null"))
    }

    /// Whether this is the scalar `name`, however it is quoted.
    pub(super) fn is_text(&self, name: &str) -> bool {
        matches!(&self.value, Value::Scalar { text, .. } if text == name)
    }

    /// Returns the node at `path`, such as `files[0].source`, or the deepest one on the way to it.
    pub(super) fn at(&self, path: &str) -> &Self {
        let mut node = self;
        for step in path.split(['.', '[']) {
            let next = match (&node.value, step.strip_suffix(']')) {
                (Value::Sequence(items), Some(index)) => {
                    index.parse().ok().and_then(|at: usize| items.get(at))
                }
                (Value::Mapping(pairs), None) => pairs
                    .iter()
                    .rev()
                    .find(|(key, _)| key.is_text(step))
                    .map(|(_, value)| value),
                _ => None,
            };
            let Some(next) = next else { break };
            node = next;
        }
        node
    }

    fn empty(position: Position) -> Rc<Self> {
        let value = Value::Scalar {
            text: String::new(),
            plain: true,
        };
        Rc::new(Self { position, value })
    }

    fn is_merge_key(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if text == "<<")
    }
}

/// Reads the first document of `bytes`. A text that is not YAML has exactly one finding.
pub(super) fn read(bytes: &[u8]) -> Result<Document, Finding> {
    let mut source = Relaxed::new(decode(bytes)?);
    loop {
        match document(&source) {
            Err(Stopped::Scan(error)) if source.change(&error) => {}
            Err(Stopped::Scan(error)) => return Err(syntax(&source, &error)),
            Err(Stopped::Found(finding)) => return Err(finding),
            Ok(mut document) => {
                document.warnings.append(&mut source.warnings);
                return Ok(document);
            }
        }
    }
}

/// The reason why the reading of a text stopped early.
enum Stopped {
    Scan(ScanError),
    Found(Finding),
}

impl From<Finding> for Stopped {
    fn from(finding: Finding) -> Self {
        Self::Found(finding)
    }
}

fn document(source: &Relaxed) -> Result<Document, Stopped> {
    let mut builder = Builder::default();
    let mut root = None;
    for event in Parser::new_from_str(&source.text) {
        let (event, span) = event.map_err(Stopped::Scan)?;
        let position = source.position(span.start);
        match event {
            Event::DocumentStart(_) if root.is_some() => {
                builder.warnings.push(finding(
                    position,
                    "a second document begins here and is ignored; an AppSpec file has one document"
                        .to_owned(),
                ));
                break;
            }
            event => root = builder.take(event, position)?.or(root),
        }
    }
    Ok(Document {
        root: root.unwrap_or_else(|| Node::empty(Position { line: 1, column: 1 })),
        warnings: builder.warnings,
    })
}

fn decode(bytes: &[u8]) -> Result<&str, Finding> {
    if bytes.len() > MAX_BYTES {
        return Err(Finding {
            position: None,
            path: String::new(),
            message: format!(
                "the file has {} bytes; an AppSpec file must not have more than {MAX_BYTES}",
                bytes.len()
            ),
        });
    }
    if matches!(bytes, [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..]) {
        return Err(finding(
            Position { line: 1, column: 1 },
            "the file is encoded as UTF-16; save it as UTF-8".to_owned(),
        ));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (valid, rest) = bytes.split_at(error.valid_up_to());
        let byte = rest.first().copied().unwrap_or_default();
        finding(
            end_of(valid),
            format!("found the byte 0x{byte:02X}, which is not UTF-8 text; save the file as UTF-8"),
        )
    })?;
    // The parser takes a NUL as the end of the text and would silently drop the rest.
    if let Some(index) = text.find('\0') {
        return Err(finding(
            end_of(&bytes[..index]),
            "found a NUL character; expected text (a file encoded as UTF-16 must be saved as UTF-8)"
                .to_owned(),
        ));
    }
    Ok(text)
}

/// The position just behind `text`, which is UTF-8.
fn end_of(text: &[u8]) -> Position {
    let line_start = text
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let is_char_start = |byte: &&u8| **byte & 0xC0 != 0x80;
    Position {
        line: text.iter().filter(|byte| **byte == b'\n').count() + 1,
        column: text[line_start..].iter().filter(is_char_start).count() + 1,
    }
}

fn finding(position: Position, message: String) -> Finding {
    Finding {
        position: Some(position),
        path: String::new(),
        message,
    }
}

fn too_deep(position: Position) -> Finding {
    finding(
        position,
        format!(
            "lists and mappings are nested deeper than {MAX_DEPTH} levels; an AppSpec file needs five"
        ),
    )
}

/// The parser's message, with advice for common mistakes.
fn syntax(source: &Relaxed, error: &ScanError) -> Finding {
    let (info, position) = (error.info(), source.position(*error.marker()));
    if info == "recursion limit exceeded" {
        return too_deep(position);
    }
    let line = source
        .text
        .lines()
        .nth(error.marker().line().saturating_sub(1))
        .unwrap_or_default();
    let indentation = &line[..line.len() - line.trim_start().len()];
    let hint = if info.contains("unknown anchor") || info.contains("scanning an anchor or alias") {
        "; a text that begins with '*' or '&' needs quotes, such as \"**\""
    } else if info.contains("tab") || indentation.contains('\t') {
        "; indent with spaces instead of tabs"
    } else if info.contains("mapping values are not allowed") {
        "; check the indentation, and put a text that contains ': ' in quotes"
    } else if info.contains("unexpected character") || info.contains("directive") {
        "; put a text that begins with '@', '`' or '%' in quotes"
    } else if info.contains("end of stream") || info.contains("document indicator") {
        "; a quote that was opened is never closed"
    } else if info.contains("',' or")
        || info.contains("bracket")
        || info.contains("flow construct")
        || info.contains("illegal placement")
    {
        "; check that every '[' and '{' is closed"
    } else if info.contains("escape") {
        "; in double quotes a backslash begins an escape: write \\\\ or use single quotes"
    } else {
        "; check the indentation and the ':' behind the key, here and in the line before"
    };
    finding(
        position,
        format!(
            "not valid YAML: {}{hint}",
            info.replace(char::is_control, "?")
        ),
    )
}

/// Builds nodes from the events of one document.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Built>,
    aliased: usize,
    warnings: Vec<Finding>,
}

/// A collection whose end has not been read yet.
struct Open {
    position: Position,
    anchor: usize,
    mapping: bool,
    /// In a mapping, keys and values alternate.
    children: Vec<Rc<Node>>,
    nodes: usize,
    height: usize,
}

/// A finished node, the number of nodes that a walk over it visits, and its depth.
#[derive(Clone)]
struct Built {
    node: Rc<Node>,
    nodes: usize,
    height: usize,
}

impl Builder {
    /// Handles one event; returns the root when the event completes it.
    fn take(&mut self, event: Event<'_>, position: Position) -> Result<Option<Rc<Node>>, Finding> {
        let (anchor, built) = match event {
            Event::SequenceStart(anchor, tag) => {
                self.note_tag(tag.as_deref(), &["seq"], position);
                self.begin(position, anchor, false)?;
                return Ok(None);
            }
            Event::MappingStart(anchor, tag) => {
                self.note_tag(tag.as_deref(), &["map"], position);
                self.begin(position, anchor, true)?;
                return Ok(None);
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(collection) => (collection.anchor, collection.build()),
                None => return Ok(None),
            },
            Event::Scalar(text, style, anchor, tag) => {
                self.note_tag(
                    tag.as_deref(),
                    &["str", "int", "float", "bool", "null"],
                    position,
                );
                let plain = match tag.as_deref() {
                    Some(tag) if tag.is_yaml_core_schema() => tag.suffix != "str",
                    Some(tag) if is_non_specific(tag) => false,
                    _ => style == ScalarStyle::Plain,
                };
                let text = text.into_owned();
                let node = Rc::new(Node {
                    position,
                    value: Value::Scalar { text, plain },
                });
                let built = Built {
                    node,
                    nodes: 1,
                    height: 0,
                };
                (anchor, built)
            }
            Event::Alias(anchor) => (0, self.alias(anchor, position)?),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => return Ok(None),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, built.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            return Ok(Some(built.node));
        };
        parent.nodes += built.nodes;
        parent.height = parent.height.max(built.height + 1);
        parent.children.push(built.node);
        Ok(None)
    }

    fn begin(&mut self, position: Position, anchor: usize, mapping: bool) -> Result<(), Finding> {
        self.check_depth(1, position)?;
        self.open.push(Open {
            position,
            anchor,
            mapping,
            children: Vec::new(),
            nodes: 1,
            height: 1,
        });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, position: Position) -> Result<Built, Finding> {
        let Some(target) = self.anchors.get(&anchor).cloned() else {
            return Err(finding(
                position,
                "the alias stands inside the value that it repeats; a value cannot contain itself"
                    .to_owned(),
            ));
        };
        self.check_depth(target.height, position)?;
        self.aliased += target.nodes;
        if self.aliased > MAX_ALIASED {
            return Err(finding(
                position,
                format!(
                    "the aliases of this file repeat more than {MAX_ALIASED} values; write the values without aliases"
                ),
            ));
        }
        Ok(target)
    }

    fn check_depth(&self, more: usize, position: Position) -> Result<(), Finding> {
        if self.open.len() + more <= MAX_DEPTH {
            return Ok(());
        }
        Err(too_deep(position))
    }

    fn note_tag(&mut self, tag: Option<&Tag>, understood: &[&str], position: Position) {
        let Some(tag) = tag else { return };
        let core = tag.is_yaml_core_schema();
        if is_non_specific(tag) || core && understood.contains(&tag.suffix.as_str()) {
            return;
        }
        let handle = if core { "!!" } else { &tag.handle };
        let name: String = format!("{handle}{}", tag.suffix).chars().take(60).collect();
        self.warnings.push(finding(
            position,
            format!("the tag {name:?} is ignored; an AppSpec file is read without tags and their functions"),
        ));
    }
}

/// Whether the tag is `!` alone, which makes the value a text.
fn is_non_specific(tag: &Tag) -> bool {
    matches!(
        (tag.handle.as_str(), tag.suffix.as_str()),
        ("", "!") | ("!", "") | ("", "")
    )
}

impl Open {
    fn build(self) -> Built {
        let value = if self.mapping {
            let mut children = self.children.into_iter();
            let mut pairs = Vec::new();
            while let (Some(key), Some(value)) = (children.next(), children.next()) {
                pairs.push((key, value));
            }
            Value::Mapping(merge(pairs))
        } else {
            Value::Sequence(self.children)
        };
        let node = Rc::new(Node {
            position: self.position,
            value,
        });
        Built {
            node,
            nodes: self.nodes,
            height: self.height,
        }
    }
}

/// Replaces `<<` by the mappings that it merges. A key of the mapping itself overrides a merged
/// one, an earlier merged mapping overrides a later one. A `<<` with anything but mappings stays,
/// and is reported when the mapping is read.
fn merge(pairs: Vec<Pair>) -> Vec<Pair> {
    if !pairs.iter().any(|(key, _)| key.is_merge_key()) {
        return pairs;
    }
    let own = pairs.iter().filter(|(key, _)| !key.is_merge_key());
    let mut taken: HashSet<String> = own.filter_map(|(key, _)| key_text(key)).collect();
    let mut merged = Vec::new();
    for pair in pairs {
        let sources = pair.0.is_merge_key().then(|| mappings(&pair.1)).flatten();
        let Some(sources) = sources else {
            merged.push(pair);
            continue;
        };
        let inherited = sources.into_iter().flatten();
        merged.extend(
            inherited
                .filter(|(key, _)| key_text(key).is_none_or(|text| taken.insert(text)))
                .cloned(),
        );
    }
    merged
}

fn key_text(key: &Node) -> Option<String> {
    match &key.value {
        Value::Scalar { text, .. } => Some(text.clone()),
        Value::Sequence(_) | Value::Mapping(_) => None,
    }
}

/// Returns the mapping `node`, or the mappings that `node` lists.
fn mappings(node: &Node) -> Option<Vec<&[Pair]>> {
    match &node.value {
        Value::Mapping(pairs) => Some(vec![pairs]),
        Value::Sequence(items) => items
            .iter()
            .map(|item| match &item.value {
                Value::Mapping(pairs) => Some(pairs.as_slice()),
                _ => None,
            })
            .collect(),
        Value::Scalar { .. } => None,
    }
}
