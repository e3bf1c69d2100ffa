//! A plot without a library: horizontal bars as SVG.

use std::fmt::Write as _;

const ROW: usize = 24;
const LABELS: usize = 230;
const BARS: usize = 460;
const MARGIN: usize = 16;

/// Bars of `values` with their labels, the largest as wide as there is room.
#[must_use]
pub fn bars(title: &str, values: &[(String, f64)]) -> String {
    let most = values.iter().map(|(_, value)| *value).fold(1.0, f64::max);
    let (width, height) = (LABELS + BARS + 110 + 2 * MARGIN, values.len() * ROW + 40 + 2 * MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"{}\" font-size=\"16\">{}</text>\n",
        MARGIN + 16,
        escaped(title)
    );
    for (index, (label, value)) in values.iter().enumerate() {
        let top = MARGIN + 40 + index * ROW;
        let length = value / most * BARS as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{}\" y=\"{top}\" width=\"{length:.1}\" height=\"{}\" fill=\"#4878a8\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text>",
            MARGIN + LABELS - 8,
            top + 14,
            escaped(label),
            MARGIN + LABELS,
            ROW - 6,
            (MARGIN + LABELS) as f64 + length + 6.0,
            top + 14,
            grouped(*value)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let apart: Vec<String> =
        digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned()).collect();
    apart.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion_and_texts_are_escaped() {
        let svg = bars("a < b", &[("one & two".to_owned(), 1_234_567.0), ("half".to_owned(), 617_283.5)]);
        assert!(svg.contains("a &lt; b") && svg.contains("one &amp; two") && svg.contains(">1,234,567<"), "{svg}");
        assert!(svg.contains("width=\"460.0\"") && svg.contains("width=\"230.0\""), "{svg}");
        assert_eq!([0.4, 999.0, 1000.0].map(grouped), ["0", "999", "1,000"]);
    }
}
