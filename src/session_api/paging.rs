//! Pages, as GoTrue's admin lists have them (`internal/api/pagination.go`).

use http::{HeaderMap, HeaderName, HeaderValue, header::LINK};

use crate::{metrics::Refusal, scope::first_query_value, session::Wanted};

/// `X-Total-Count`: how many there are in all.
const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");
/// GoTrue's `defaultPerPage`.
const PER_PAGE: u64 = 50;
/// GoTrue's `maxKeysetPerPage`; its numbered pages have no bound, ours have this one.
const PER_PAGE_MAX: u32 = 1000;

/// Which page, and how long pages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paging {
    /// From 1; 0 is taken for 1, as GoTrue takes it.
    page: u64,
    /// At least 1, at most [`PER_PAGE_MAX`].
    per_page: u32,
    /// As it was given, for links.
    given: Option<u64>,
}

impl Paging {
    /// Reads `page` and `per_page` of a raw query. A longer page than there can be is cut.
    ///
    /// # Errors
    /// [`Refusal::BadPage`] for what is no whole number, and for pages without room.
    pub fn read(query: &str) -> Result<Self, Refusal> {
        let page = number(query, "page")?.unwrap_or(1);
        let given = number(query, "per_page")?;
        let per_page = u32::try_from(given.unwrap_or(PER_PAGE)).unwrap_or(u32::MAX).min(PER_PAGE_MAX);
        if per_page == 0 {
            return Err(Refusal::BadPage); // GoTrue divides by it
        }
        Ok(Self { page, per_page, given })
    }

    /// For the store.
    pub fn wanted(self) -> Wanted {
        let skip = self.page.max(1).saturating_sub(1).saturating_mul(self.per_page.into());
        Wanted::Page { skip, take: self.per_page }
    }

    /// Adds `X-Total-Count` and `Link`. Of the query only what pages need is repeated: the rest may hold an API key.
    pub fn head(self, path: &str, total: u64, headers: &mut HeaderMap) {
        let pages = total.div_ceil(self.per_page.into());
        let per_page = self.given.map_or(String::new(), |given| format!("&per_page={given}"));
        let link = |page: u64, rel| format!("<{path}?page={page}{per_page}>; rel=\"{rel}\"");
        let next = (pages > self.page).then(|| format!("{}, ", link(self.page.saturating_add(1), "next")));
        let links = format!("{}{}", next.unwrap_or_default(), link(pages, "last"));
        if let Ok(links) = HeaderValue::try_from(links) {
            headers.insert(LINK, links);
        }
        headers.insert(TOTAL_COUNT, HeaderValue::from(total));
    }
}

/// Go's `strconv.ParseUint` in base 10; nothing is no number, and not wrong.
fn number(query: &str, name: &str) -> Result<Option<u64>, Refusal> {
    let text = first_query_value(query, name).filter(|text| !text.is_empty());
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    text.map(|text| digits(&text).ok_or(Refusal::BadPage)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_as_go_reads_numbers() {
        let page = |skip, take| Ok(Wanted::Page { skip, take });
        let table = [
            ("", page(0, 50)),
            ("page=&per_page=", page(0, 50)),
            ("page=0", page(0, 50)),
            ("page=1", page(0, 50)),
            ("page=3&per_page=7", page(14, 7)),
            ("page=007", page(300, 50)),
            ("per_page=1000", page(0, 1000)),
            ("per_page=1001", page(0, 1000)),
            ("per_page=18446744073709551615", page(0, 1000)),
            ("page=18446744073709551615", page(u64::MAX, 50)),
            ("page=18446744073709551616", Err(Refusal::BadPage)),
            ("per_page=0", Err(Refusal::BadPage)),
            ("page=-1", Err(Refusal::BadPage)),
            ("page=+1", Err(Refusal::BadPage)),
            ("page=%2B1", Err(Refusal::BadPage)),
            ("page=1e3", Err(Refusal::BadPage)),
            ("page=1.0", Err(Refusal::BadPage)),
            ("page=2&page=9", page(50, 50)),
        ];
        for (query, expected) in table {
            assert_eq!(Paging::read(query).map(Paging::wanted), expected, "{query}");
        }
    }

    #[test]
    fn links_are_in_gotrues_form() {
        let table = [
            ("", 0, "</sessions?page=0>; rel=\"last\""),
            ("", 50, "</sessions?page=1>; rel=\"last\""),
            ("", 51, "</sessions?page=2>; rel=\"next\", </sessions?page=2>; rel=\"last\""),
            ("page=2", 51, "</sessions?page=2>; rel=\"last\""),
            (
                "per_page=2&page=2&apikey=secret",
                7,
                "</sessions?page=3&per_page=2>; rel=\"next\", </sessions?page=4&per_page=2>; rel=\"last\"",
            ),
            ("page=9&per_page=2", 7, "</sessions?page=4&per_page=2>; rel=\"last\""),
        ];
        for (query, total, expected) in table {
            let mut headers = HeaderMap::new();
            Paging::read(query).unwrap().head("/sessions", total, &mut headers);
            assert_eq!(headers[LINK], expected, "{query} {total}");
            assert_eq!(headers[TOTAL_COUNT], total.to_string());
        }
    }
}
