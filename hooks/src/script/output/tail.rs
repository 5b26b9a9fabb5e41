//! The last lines of a command's script log, for its completion report.

use std::collections::VecDeque;

use codedeploy_api::diagnostics::MAX_LOG_CHARS;

/// Whole lines, at most [`MAX_LOG_CHARS`] characters together with their newlines.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    chars: usize,
}

impl Tail {
    /// Adds a line. A line that is too long on its own keeps its end, behind `…`.
    pub(super) fn push(&mut self, line: &str) {
        // `nth_back` looks at the end only: lines may be long.
        let too_long = line.char_indices().nth_back(MAX_LOG_CHARS - 1).is_some();
        let line = match line.char_indices().nth_back(MAX_LOG_CHARS - 3) {
            Some((start, _)) if too_long => format!("…{}", &line[start..]),
            _ => line.to_owned(),
        };
        self.chars += line.chars().count() + 1;
        self.lines.push_back(line);
        while self.chars > MAX_LOG_CHARS
            && let Some(oldest) = self.lines.pop_front()
        {
            self.chars -= oldest.chars().count() + 1;
        }
    }

    /// The lines, each with its newline.
    pub(super) fn text(&self) -> String {
        self.lines
            .iter()
            .flat_map(|line| [line.as_str(), "\n"])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_lines_that_fit_are_kept() {
        let mut tail = Tail::default();
        (0..1000).for_each(|n| tail.push(&format!("[stdout]line é {n}")));
        let text = tail.text();
        assert!(text.ends_with("[stdout]line é 998\n[stdout]line é 999\n"));
        assert!(text.starts_with("[stdout]line é "));
        let chars = text.chars().count();
        assert!(
            (MAX_LOG_CHARS - 20..=MAX_LOG_CHARS).contains(&chars),
            "{chars}"
        );
    }

    #[test]
    fn of_a_line_that_does_not_fit_the_end_is_kept() {
        for (length, whole) in [
            (MAX_LOG_CHARS - 1, true),
            (MAX_LOG_CHARS, false),
            (5 * MAX_LOG_CHARS, false),
        ] {
            let mut tail = Tail::default();
            tail.push("before");
            tail.push(&format!("{}END", "é".repeat(length - 3)));
            let text = tail.text();
            assert_eq!(text.chars().count(), MAX_LOG_CHARS, "{length}");
            assert!(text.ends_with("END\n"));
            assert_eq!(text.starts_with('…'), !whole, "{length}");
        }
    }
}
