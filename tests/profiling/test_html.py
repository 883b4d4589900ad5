import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from maskdecay.profiling import Report, diff, render

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """What a page holds, and whether every tag that opens is closed."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text: list[str] = []
        self.folded_rows = 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
            self.folded_rows += "details" in self.open and "thead" not in self.open
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


@pytest.fixture(scope="module")
def text(report) -> str:
    return render(report, "html")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_the_page_tells_all_there_is(page):
    text = " ".join("".join(page.text).split())
    for told in (
        "Profile of toy:large and toy:small",
        "2.00x as fast",
        "as toy:large, with 4.00 times fewer MACs; efficiency 50%",
        "Abacus (cpu, 2 threads)",
        "Toy runs out of memory on cpu with inputs of shape (1, 3, 1080, 1920)",
        "not counted: lib::op x3",
        "toy:small at 768x512: 2.00 times as fast as toy:large with 4.00 times fewer MACs, 50% of what the MACs",
        "Milliseconds by stage: median (10-90%)",
    ):
        assert told in text
    assert page.rows[1][:6] == ["toy:large", "768x512", "17.38 M", "2 G", "5,086", "25 (24-27.5)"]
    assert page.rows[4][5] == "out of memory"
    reasons = [row for row in page.rows if row[0] == "memory"]
    assert reasons == [
        [
            *("memory", "4.5", "75%", "dec.0, dec.1, dec.2, dec.3 and 1 more", "MACs 4.00, bytes 2.00, time 1.90"),
            "Bandwidth holds them up.",
        ]
    ]


def test_the_page_shows_every_picture_there_is_data_for(page):
    labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
    assert [label.partition(" of ")[2] or label for label in labels[:3]] == [
        *("every network's speed-up beside its MAC ratio", "every network's latency"),
        "the time that every stage takes",
    ]
    assert page.count("figure") == page.count("svg") == len(labels) == 8  # 3, then 3 at 768x512 and 2 at 1920x1080


def test_the_longest_layers_are_shown_and_the_rest_is_folded(report):
    page = Page(render(Report(report.rows[:1]), "html"))
    start = next(place for place, row in enumerate(page.rows) if row[:2] == ["layer", "ms"])
    shown = page.rows[start + 1 : start + 16]
    assert [row[0] for row in shown[:3]] == ["enc.8", "dec.8", "enc.7"]
    assert shown[0][1:8] == ["2.25", "9.0%", "arithmetic", "1.5x", "14.75 M", "3.2 MB", "64 to 64"]
    times = [float(row[1]) for row in shown]
    assert times == sorted(times, reverse=True)
    assert page.folded_rows == 20 - 15
    assert "5 more, 9% of the time" in "".join(page.text)


def test_the_page_needs_nothing_besides_itself(text, page):
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    attributes = [(name, value or "") for _, attrs in page.tags for name, value in attrs.items()]
    assert not [pair for pair in attributes if pair[0].startswith("on") or pair[0] in ("src", "srcset", "action")]
    references = [value for name, value in attributes if name.endswith("href")]
    assert all(value.startswith("#") for value in references)
    assert "url(" not in re.sub(r"url\(#", "", text)
    assert "@import" not in text
    addresses = set(re.findall(r"https?://[\w./]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_references_within_the_page_lead_somewhere(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    wanted = {value[1:] for _, attrs in page.tags for name, value in attrs.items() if name.endswith("href") and value}
    wanted |= {name for _, attrs in page.tags for name in re.findall(r"url\(#([^)]*)\)", attrs.get("clip-path") or "")}
    assert wanted
    assert wanted <= set(ids)


def test_names_stay_text(report):
    name = "</style><script>alert(1)</script>\"><img src=x onerror='alert(1)'>a&amp;b"
    odd = [
        replace(
            row,
            name=name,
            baseline="other" + name,
            error=row.error and name,
            uncounted={name: 1},
            parts={name: next(iter(row.parts.values()))},
            layers=tuple(replace(layer, path=name, kind=name) for layer in row.layers),
            reasons=tuple(replace(reason, layers=(name,), detail=name) for reason in row.reasons),
        )
        for row in report.rows[:2]
    ]
    for text in (render(Report(tuple(odd)), "html"), render(diff(Report(tuple(odd)), report), "html")):
        page = Page(text)
        assert not {"script", "img"} & {tag for tag, _ in page.tags}
        assert name in "".join(page.text)


def test_a_page_of_counts_alone(counted):
    page = Page(render(counted, "html"))
    assert page.count("svg") == 1
    assert "not timed" in page.text
    assert "The report is empty." in "".join(Page(render(Report(()), "html")).text)


def test_a_page_of_a_difference(report):
    new = Report((replace(report.rows[0], params=16_000_000), *report.rows[2:]))
    page = Page(render(diff(report, new), "html"))
    assert page.rows[0] == ["network", "size", "change", "params", "MACs", "ms"]
    assert page.rows[1] == ["toy:large", "768x512", "within spread", "17.38 M -> 16 M (x0.921)", "2 G", "25"]
    assert page.rows[2][2] == "only in old"
