//! Text in columns, for people: names above, numbers to the right, two blanks between. No borders, no colour.

/// Rows of cells under their names.
#[derive(Clone, Debug)]
pub struct Table {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Columns of these names.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        Self { names: names.iter().map(|name| (*name).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row. **Shape:** a cell for each name.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table under a heading; nothing at all when it has no rows.
    #[must_use]
    pub fn under(&self, heading: &str) -> String {
        if self.rows.is_empty() { String::new() } else { format!("{heading}\n{}\n", self.text()) }
    }

    /// The table.
    #[must_use]
    pub fn text(&self) -> String {
        let columns: Vec<(usize, bool)> = (0..self.names.len()).map(|at| self.column(at)).collect();
        let mut text = String::new();
        for row in std::iter::once(&self.names).chain(&self.rows) {
            let mut line = String::new();
            for (cell, &(width, right)) in row.iter().zip(&columns) {
                let padding = " ".repeat(width - cell.chars().count());
                if right {
                    line.push_str(&padding);
                    line.push_str(cell);
                } else {
                    line.push_str(cell);
                    line.push_str(&padding);
                }
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Comma separated values under the names; nothing is an empty cell.
    #[must_use]
    pub fn csv(&self) -> String {
        let line = |cells: &Vec<String>| {
            let cells = cells.iter().map(|cell| if cell == "-" { String::new() } else { cell.clone() });
            myelin_cli::csv(&cells.collect::<Vec<_>>()) + "\n"
        };
        std::iter::once(&self.names).chain(&self.rows).map(line).collect()
    }

    /// Width, and whether it is numbers.
    fn column(&self, at: usize) -> (usize, bool) {
        let cells = || self.rows.iter().filter_map(|row| row.get(at));
        let width = cells().chain(self.names.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        (width, cells().all(|cell| cell == "-" || cell.parse::<f64>().is_ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let mut table = Table::new(&["name", "rows"]);
        table.row(["a".to_owned(), "7".to_owned()]);
        table.row(["longer".to_owned(), "12345".to_owned()]);
        assert_eq!(table.text(), "name     rows\na           7\nlonger  12345\n");
        assert_eq!(Table::new(&["nothing"]).under("heading"), "");
        table.row(["b, c".to_owned(), "-".to_owned()]);
        assert_eq!(table.csv(), "name,rows\na,7\nlonger,12345\n\"b, c\",\n");
    }
}
