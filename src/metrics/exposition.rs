//! The two forms in which metrics are read, and which of them a scraper asks for.

/// A form of the metrics page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The page's `Content-Type`. Prometheus 3 refuses a page without the right one.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The form that an `Accept` header (RFC 9110 §12.5.1) prefers. OpenMetrics wins a tie, text
    /// wins where neither is listed: a scraper gets a page in any case.
    pub fn accepted_by(accept: &str) -> Self {
        let mut openmetrics = 0.0;
        let mut text = 0.0;
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let Parameters { quality, version } = Parameters::of(parts);
            match media_type.as_str() {
                "application/openmetrics-text" if matches!(version, None | Some("1.0.0")) => {
                    openmetrics = quality.max(openmetrics);
                }
                "text/plain" | "text/*" | "*/*" => text = quality.max(text),
                _ => {}
            }
        }
        if openmetrics > 0.0 && openmetrics >= text { Self::OpenMetrics } else { Self::Text }
    }
}

/// What follows a media range.
struct Parameters<'a> {
    /// 0 to 1; 1 where it is not given, 0 where it cannot be read.
    quality: f32,
    version: Option<&'a str>,
}

impl<'a> Parameters<'a> {
    fn of(parts: impl Iterator<Item = &'a str>) -> Self {
        let mut parameters = Self { quality: 1.0, version: None };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            if name.eq_ignore_ascii_case("q") {
                let quality = value.parse().unwrap_or(0.0);
                parameters.quality = if (0.0..=1.0).contains(&quality) { quality } else { 0.0 };
            } else if name.eq_ignore_ascii_case("version") {
                parameters.version = Some(value.trim_matches('"'));
            }
        }
        parameters
    }
}

/// Brings families, and the series of counters and gauges, into the order of their names: the exporter
/// has none, and people read the page too.
pub(super) fn ordered(text: &str) -> String {
    let mut families: Vec<&str> = text.split("\n\n").filter(|family| !family.is_empty()).collect();
    // every family begins with `# HELP` and its name
    families.sort_unstable();
    let mut page = String::with_capacity(text.len());
    for family in families {
        let mut lines: Vec<&str> = family.lines().collect();
        if !lines.iter().any(|line| line.ends_with(" histogram")) {
            // '#' sorts before every name, `HELP` before `TYPE`
            lines.sort_unstable();
        }
        for line in lines {
            page.extend([line, "\n"]);
        }
    }
    page
}

/// Turns a page of Prometheus text into OpenMetrics: counter families lose their `_total` (samples
/// keep it), bounds are written as floats, and the page says where it ends.
pub(super) fn openmetrics(text: &str) -> String {
    let mut page = String::with_capacity(text.len() + 16);
    let counters: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    for line in text.lines() {
        match Metadata::of(line) {
            Some(Metadata { keyword, name, rest }) if counters.contains(&name) => {
                let family = name.strip_suffix("_total").unwrap_or(name);
                page.extend(["# ", keyword, " ", family, " ", rest]);
            }
            Some(_) => page.push_str(line),
            None => push_sample(&mut page, line),
        }
        page.push('\n');
    }
    page.push_str("# EOF\n");
    page
}

/// A line that describes a family.
struct Metadata<'a> {
    keyword: &'a str,
    name: &'a str,
    rest: &'a str,
}

impl<'a> Metadata<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (keyword, after) = line.strip_prefix("# ")?.split_once(' ')?;
        let (name, rest) = after.split_once(' ')?;
        Some(Self { keyword, name, rest })
    }
}

/// A bound must be a canonical number: `1.0`, not `1`.
fn push_sample(page: &mut String, line: &str) {
    let bound = line.split_once("le=\"").and_then(|(before, after)| Some((before, after.split_once('"')?)));
    match bound {
        Some((before, (bound, after))) if bound.bytes().all(|byte| byte.is_ascii_digit()) => {
            page.extend([before, "le=\"", bound, ".0\"", after]);
        }
        _ => page.push_str(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_form_is_given() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
                            escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (prometheus_3, Format::OpenMetrics),
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("application/json", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;version=0.0.1", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=0.3, text/plain;q=0.6", Format::Text),
            ("text/plain;q=0.6, application/openmetrics-text;q=0.6", Format::OpenMetrics),
            ("application/openmetrics-text;q=NaN", Format::Text),
            ("application/openmetrics-text;q=9", Format::Text),
            (";;,=;q", Format::Text),
        ] {
            assert_eq!(Format::accepted_by(accept), expected, "{accept}");
        }
    }

    #[test]
    fn the_page_is_in_order() {
        let text = "# HELP b B.\n# TYPE b counter\nb{x=\"2\"} 0\nb{x=\"1\"} 0\n\n\
                    # HELP a A.\n# TYPE a histogram\na_bucket{le=\"9\"} 0\na_bucket{le=\"10\"} 0\n\n";
        let expected = "# HELP a A.\n# TYPE a histogram\na_bucket{le=\"9\"} 0\na_bucket{le=\"10\"} 0\n\
                        # HELP b B.\n# TYPE b counter\nb{x=\"1\"} 0\nb{x=\"2\"} 0\n";
        assert_eq!(ordered(text), expected);
    }

    #[test]
    fn openmetrics_names_counter_families_without_total_and_ends() {
        let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"y\"} 3\n\
                    # HELP b_seconds Time.\n# TYPE b_seconds histogram\n\
                    b_seconds_bucket{le=\"0.5\"} 1\nb_seconds_bucket{le=\"1\"} 1\n\
                    b_seconds_bucket{le=\"+Inf\"} 1\nb_seconds_sum 0.25\nb_seconds_count 1\n\
                    # TYPE c_total gauge\nc_total 1\n";
        let expected = "# HELP a Things.\n# TYPE a counter\na_total{x=\"y\"} 3\n\
                        # HELP b_seconds Time.\n# TYPE b_seconds histogram\n\
                        b_seconds_bucket{le=\"0.5\"} 1\nb_seconds_bucket{le=\"1.0\"} 1\n\
                        b_seconds_bucket{le=\"+Inf\"} 1\nb_seconds_sum 0.25\nb_seconds_count 1\n\
                        # TYPE c_total gauge\nc_total 1\n# EOF\n";
        assert_eq!(openmetrics(text), expected);
    }
}
