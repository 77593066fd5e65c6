//! Medians, and how figures are shown.

/// The middle one of some figures; NaN for none.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, middle) if count % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// A figure and the most that it may be.
pub fn at_most(figure: f64, bar: f64) -> [String; 2] {
    [format!("≤ {bar}"), verdict(figure <= bar)]
}

/// A figure and the least that it may be.
pub fn at_least(figure: f64, bar: f64) -> [String; 2] {
    [format!("≥ {bar}"), verdict(figure >= bar)]
}

/// A row to which no bar applies.
pub fn no_bar() -> [String; 2] {
    [String::new(), String::new()]
}

fn verdict(holds: bool) -> String {
    if holds { "holds" } else { "MISSED" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_whatever_the_order() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_figure_that_is_not_a_number_meets_no_bar() {
        assert_eq!(at_most(f64::NAN, 1.0)[1], "MISSED");
        assert_eq!(at_least(f64::NAN, 1.0)[1], "MISSED");
        assert_eq!(at_least(0.9, 0.9)[1], "holds");
    }
}
