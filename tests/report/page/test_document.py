"""One file with everything inside, and a policy that lets nothing else in."""

import base64
import hashlib
import re

import pytest

from htsr.report.page.document import document

HOSTILE = ["</script><img src=x onerror=alert(1)>", "<!--<script>", '"><b>', "&lt;", "\u2028", "]]>"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_leaves_its_place(text, read_page):
    page = document({"title": text, "name": text})
    assert read_page(page) == {"title": text, "name": text}
    assert "<img" not in page
    assert page.count("<script") == page.count("</script>") == 3
    assert page.count("<!--") == 0


def test_the_policy_allows_exactly_what_is_inside():
    page = document({"title": "t"})
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(r"https?:|data:(?!;)|\*", policy.replace("img-src data:", ""))
    inside = re.findall(r"<script>(.*?)</script>", page, re.DOTALL) + re.findall(
        r"<style>(.*?)</style>", page, re.DOTALL
    )
    hashes = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in inside}
    assert set(re.findall(r"'sha256-([^']*)'", policy)) == hashes
    assert len(inside) == 3


def test_the_library_brings_its_licence():
    page = document({"title": "t"})
    assert "Permission is hereby granted" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
