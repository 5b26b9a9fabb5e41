//! Turns the bytes of a terminal program into lines of plain text.

/// The longest line, in bytes; the rest of a longer one continues in the next line.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// The longest escape sequence, in characters; a longer one counts as text that begins with a stray
/// ESC.
const MAX_ESCAPE: usize = 4096;

/// One stream, cut into lines as it arrives. Invalid UTF-8 becomes U+FFFD; escape sequences
/// (ECMA-48) and control characters other than tab are dropped. Holds at most one line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: String,
    /// The beginning of a character whose remaining bytes have not arrived.
    incomplete: Vec<u8>,
    escape: Escape,
}

/// The stream's position in an escape sequence.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Escape {
    #[default]
    None,
    /// After ESC and any intermediate characters.
    Started,
    /// CSI: parameters until a final character.
    Control(usize),
    /// OSC, DCS and the like: any text until BEL or ST.
    Text(usize),
    /// After an ESC inside such text: `\` makes it ST.
    TextEnd,
}

impl Lines {
    /// Takes the next bytes, and passes on every line that they complete, without its newline.
    pub(super) fn push(&mut self, bytes: &[u8], line: &mut dyn FnMut(&str)) {
        let joined;
        let mut rest = if self.incomplete.is_empty() {
            bytes
        } else {
            joined = [std::mem::take(&mut self.incomplete).as_slice(), bytes].concat();
            joined.as_slice()
        };
        while !rest.is_empty() {
            let error = match str::from_utf8(rest) {
                Ok(text) => return self.text(text, line),
                Err(error) => error,
            };
            let (valid, invalid) = rest.split_at(error.valid_up_to());
            self.text(str::from_utf8(valid).unwrap_or_default(), line);
            let Some(length) = error.error_len() else {
                self.incomplete = invalid.to_vec();
                return;
            };
            self.text("\u{fffd}", line);
            rest = &invalid[length..];
        }
    }

    /// Ends the stream: passes on the last line, if it was not terminated.
    pub(super) fn finish(&mut self, line: &mut dyn FnMut(&str)) {
        if !std::mem::take(&mut self.incomplete).is_empty() {
            self.text("\u{fffd}", line);
        }
        self.escape = Escape::None;
        if !self.line.is_empty() {
            self.end_line(line);
        }
    }

    fn text(&mut self, mut text: &str, line: &mut dyn FnMut(&str)) {
        while let Some(first) = text.chars().next() {
            if self.escape == Escape::None && !first.is_control() {
                let plain = text.find(char::is_control).unwrap_or(text.len());
                self.plain(&text[..plain], line);
                text = &text[plain..];
                continue;
            }
            text = &text[first.len_utf8()..];
            self.escape = match self.escape.next(first) {
                Some(next) => next,
                None => {
                    self.character(first, line);
                    Escape::None
                }
            };
        }
    }

    /// A character outside every escape sequence.
    fn character(&mut self, c: char, line: &mut dyn FnMut(&str)) {
        match c {
            '\n' => self.end_line(line),
            '\t' => self.plain("\t", line),
            c if c.is_control() => {}
            c => self.plain(c.encode_utf8(&mut [0; 4]), line),
        }
    }

    fn plain(&mut self, mut text: &str, line: &mut dyn FnMut(&str)) {
        while self.line.len() + text.len() > MAX_LINE {
            let (fits, rest) = text.split_at(text.floor_char_boundary(MAX_LINE - self.line.len()));
            self.line.push_str(fits);
            self.end_line(line);
            text = rest;
        }
        self.line.push_str(text);
    }

    fn end_line(&mut self, line: &mut dyn FnMut(&str)) {
        line(&self.line);
        self.line.clear();
    }
}

impl Escape {
    /// The state after `c`; `None` if `c` belongs to no escape sequence. A newline always ends a
    /// sequence: a false one must not swallow the lines after it.
    fn next(self, c: char) -> Option<Escape> {
        match (self, c) {
            (_, '\n') => None,
            (Escape::Text(_), '\x1b') => Some(Escape::TextEnd),
            (_, '\x1b') => Some(Escape::Started),
            (Escape::Text(_), '\x07' | '\u{9c}') | (Escape::TextEnd, '\\') => Some(Escape::None),
            (Escape::Text(length), _) => (length < MAX_ESCAPE).then_some(Escape::Text(length + 1)),
            (Escape::Started | Escape::TextEnd, '[') | (Escape::None, '\u{9b}') => {
                Some(Escape::Control(0))
            }
            (Escape::Started | Escape::TextEnd, 'P' | 'X' | ']' | '^' | '_') => {
                Some(Escape::Text(0))
            }
            (Escape::None, '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}') => Some(Escape::Text(0)),
            (Escape::Started | Escape::TextEnd, ' '..='/') => Some(Escape::Started),
            (Escape::Started | Escape::TextEnd, '0'..='~') => Some(Escape::None),
            (Escape::Control(length), ' '..='?') => {
                (length < MAX_ESCAPE).then_some(Escape::Control(length + 1))
            }
            (Escape::Control(_), '@'..='~') => Some(Escape::None),
            (Escape::None | Escape::Started | Escape::Control(_) | Escape::TextEnd, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `bytes`, which must not depend on how the bytes are cut up.
    fn lines(bytes: &[u8]) -> Vec<String> {
        let cut = |size: usize| {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            bytes
                .chunks(size)
                .for_each(|piece| lines.push(piece, &mut |line| seen.push(line.to_owned())));
            lines.finish(&mut |line| seen.push(line.to_owned()));
            seen
        };
        let whole = cut(bytes.len().max(1));
        for size in 1..bytes.len().min(16) {
            assert_eq!(cut(size), whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn lines_end_at_newlines_and_the_last_one_at_the_end() {
        assert_eq!(lines(b"a\n\nb"), ["a", "", "b"]);
        assert_eq!(lines(b"a\r\n"), ["a"]);
        assert_eq!(lines(b""), [""; 0]);
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        assert_eq!(lines(b"a\xff\xfeb\xc3"), ["a\u{fffd}\u{fffd}b\u{fffd}"]);
        assert_eq!(lines("grün → 🦀\n".as_bytes()), ["grün → 🦀"]);
    }

    #[test]
    fn escape_sequences_and_control_characters_are_dropped_but_tabs_stay() {
        let cases: [(&[u8], &str); 11] = [
            (b"\x1b[1;31mred\x1b[0m", "red"),
            (b"a\x08\x07\x00\x7fb\tc", "ab\tc"),
            (b"\x1b]0;title\x07text", "text"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"\x1bPdcs\x1b\\text", "text"),
            (b"\x1b(Btext\x1bc", "text"),
            ("\u{9b}31mred\u{9d}osc\u{9c}\u{85}".as_bytes(), "red"),
            (b"\x1b[31\xc3\xa9", "\u{e9}"),
            (b"10%\r20%\r", "10%20%"),
            (b"\x1b\x1b[1mx", "x"),
            (b"\x1b[3\x1b[1mx", "x"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(lines(bytes), [expected], "{bytes:?}");
        }
    }

    #[test]
    fn an_escape_sequence_that_never_ends_swallows_neither_the_next_line_nor_everything() {
        assert_eq!(lines(b"\x1b]lost\nkept"), ["", "kept"]);
        assert_eq!(lines(b"\x1b[12\nkept"), ["", "kept"]);
        let mut endless = b"\x1b]".to_vec();
        endless.resize(3 * MAX_ESCAPE, b'x');
        assert!(lines(&endless)[0].len() > MAX_ESCAPE);
    }

    #[test]
    fn a_long_line_goes_on_in_the_next_without_losing_a_character() {
        let text = "é".repeat(MAX_LINE);
        let lines = lines(format!("x{text}\n").as_bytes());
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE));
        assert_eq!(lines.concat(), format!("x{text}"));
    }
}
