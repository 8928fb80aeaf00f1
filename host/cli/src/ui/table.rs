//! Tables for people: cells aligned under their headings, cleaned of whatever a guest put into them.

use super::clean;

const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";
/// Blanks between two columns.
const GAP: &str = "  ";

/// Rows under headings.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns an empty table.
    pub(crate) fn new(headings: impl Into<Vec<&'static str>>) -> Self {
        Self {
            headings: headings.into(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; an empty cell is shown as `-`.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| {
            if cell.is_empty() {
                "-".to_owned()
            } else {
                clean(&cell).into_owned()
            }
        };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// Returns the lines, the headings bold where `bold`.
    pub(super) fn render(&self, bold: bool) -> String {
        let widths: Vec<usize> = (0..self.headings.len())
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
                widest.max(self.headings[column].len())
            })
            .collect();
        let headings = line(&self.headings, &widths);
        let mut out = if bold {
            format!("{BOLD}{headings}{RESET}\n")
        } else {
            format!("{headings}\n")
        };
        for row in &self.rows {
            out.push_str(&line(row, &widths));
            out.push('\n');
        }
        out
    }
}

fn line<T: AsRef<str>>(cells: &[T], widths: &[usize]) -> String {
    let padded: Vec<String> = cells
        .iter()
        .zip(widths)
        .map(|(cell, width)| format!("{:width$}", cell.as_ref()))
        .collect();
    padded.join(GAP).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "IMAGE"]);
        table.row(["penguin".to_owned(), "Evil\x1b[31m".to_owned()]);
        table.row(["a".to_owned(), String::new()]);
        insta::assert_snapshot!(table.render(false), @r"
        NAME     IMAGE
        penguin  Evil^[[31m
        a        -
        ");
    }
}
