"""What every page must keep, at any width and in both themes. Each function returns the faults of a page, one sentence each."""

from axe_playwright_python.sync_playwright import Axe

COMMON = """
const visible = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true });
const described = (e) => {
  const names = [e.localName, e.id && "#" + e.id, e.getAttribute("class") && "." + e.getAttribute("class")];
  return names.filter(Boolean).join("") + ` '${(e.textContent || "").trim().slice(0, 40)}'`;
};
"""

OVERFLOW = """
const width = document.scrollingElement.clientWidth;
const all = [...document.body.querySelectorAll("*")].filter(visible);
const wide = document.scrollingElement.scrollWidth <= width ? []
  : all.filter((e) => e.getBoundingClientRect().right > width + 0.5)
    .map((e) => `${described(e)} ends at ${e.getBoundingClientRect().right} of ${width} px`);
const cut = all
  .filter((e) => /hidden|clip/.test(getComputedStyle(e).overflowX) && getComputedStyle(e).textOverflow !== "ellipsis")
  .filter((e) => e.clientWidth > 1 && e.scrollWidth > e.clientWidth + 1)
  .map((e) => `${described(e)} shows ${e.clientWidth} of its ${e.scrollWidth} px`);
return [...wide, ...cut];
"""

CONTRAST = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
const known = new Map();
const rgba = (color) => {
  if (!known.has(color)) {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    known.set(color, [r, g, b, a / 255]);
  }
  return known.get(color);
};
const over = ([r, g, b, a], below) => [r, g, b].map((c, i) => c * a + below[i] * (1 - a));
const faded = ([r, g, b, a], by) => [r, g, b, a * by];
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const opacity = (e) => (e ? getComputedStyle(e).opacity * opacity(e.parentElement) : 1);
const scheme = getComputedStyle(document.documentElement).colorScheme;
const darkly = scheme.includes("light") ? matchMedia("(prefers-color-scheme: dark)").matches : true;
const root = scheme.includes("dark") && darkly ? [18, 18, 18] : [255, 255, 255];
const behind = (e) => {
  if (!e) return root;
  const below = behind(e.parentElement);
  return over(faded(rgba(getComputedStyle(e).backgroundColor), opacity(e)), below);
};
const shapesBehind = (text, x, y) => [...text.ownerSVGElement.querySelectorAll("rect, path, circle, ellipse, polygon")]
  .filter((s) => visible(s) && s.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING)
  .filter((s) => getComputedStyle(s).fill !== "none")
  .filter((s) => s.isPointInFill(new DOMPoint(x, y).matrixTransform(s.getScreenCTM().inverse())))
  .map((s) => faded(rgba(getComputedStyle(s).fill), getComputedStyle(s).fillOpacity * opacity(s)));
const faults = [];
const judge = (e, style, text, box) => {
  let below = behind(e);
  const svg = e.ownerSVGElement;
  if (svg) {
    for (const shape of shapesBehind(e, box.x + box.width / 2, box.y + box.height / 2)) below = over(shape, below);
  }
  const ink = over(faded(rgba(svg ? style.fill : style.color), opacity(e)), below);
  const [dark, bright] = [luminance(ink), luminance(below)].sort((a, b) => a - b);
  const ratio = (bright + 0.05) / (dark + 0.05);
  const size = parseFloat(style.fontSize);
  const needed = size >= 24 || (size >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;
  if (ratio < needed) faults.push(`'${text.trim().slice(0, 40)}' in ${described(e)} has contrast ${ratio.toFixed(2)}`);
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const [node, e] = [texts.currentNode, texts.currentNode.parentElement];
  if (!node.data.trim() || !visible(e) || e.closest("script, style, :disabled")) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  const box = range.getBoundingClientRect();
  if (box.width > 1 && box.height > 1) judge(e, getComputedStyle(e), node.data, box);
}
for (const e of document.querySelectorAll("input, select, textarea")) {
  if (!visible(e) || e.disabled || /range|checkbox|radio|color/.test(e.type)) continue;
  judge(e, getComputedStyle(e), e.value || "value", e.getBoundingClientRect());
  if (e.placeholder) judge(e, getComputedStyle(e, "::placeholder"), e.placeholder, e.getBoundingClientRect());
}
return faults;
"""

NAMES = """
const named = (e) => e.hasAttribute("aria-label") || e.hasAttribute("aria-labelledby") || e.getAttribute("alt")
  || (e.localName === "svg" && e.querySelector(":scope > title"));
const drawn = [...document.querySelectorAll("img, canvas, svg")].filter((e) => visible(e) && !named(e)
  && !e.closest("[aria-hidden=true]") && !(e.localName === "img" && e.hasAttribute("alt"))
  && ![...document.querySelectorAll("[role=img]")].some((whole) => whole.contains(e) && named(whole)));
const headers = [...document.querySelectorAll("th:not([scope])")];
const tables = [...document.querySelectorAll("table:not([role=presentation], .u-legend)")].filter((e) => !e.caption);
const inputs = [...document.querySelectorAll("input, select, textarea")]
  .filter((e) => !named(e) && !e.labels?.length && e.type !== "hidden");
return [
  ...drawn.map((e) => `${described(e)} has no accessible name`),
  ...headers.map((e) => `${described(e)} has no scope`),
  ...tables.map((e) => `${described(e)} has no caption`),
  ...inputs.map((e) => `${described(e)} has no label`),
];
"""

FOCUSED = """
const e = document.activeElement;
if (!e || e === document.body || e === window.htsrFirstStop) return null;
const style = getComputedStyle(e);
const ring = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
const before = window.htsrLastStop;
const later = !before || before.compareDocumentPosition(e) & Node.DOCUMENT_POSITION_FOLLOWING;
window.htsrFirstStop ??= e;
window.htsrLastStop = e;
return { name: described(e), ring, later: Boolean(later), shown: visible(e) };
"""


def _run(page, body: str):
    """Run the body of a function in the page."""
    return page.evaluate(f"() => {{ {COMMON} {body} }}")


def overflow_faults(page) -> list[str]:
    """Return the elements that reach beyond the window, and those that cut off what they hold."""
    return _run(page, OVERFLOW)


def contrast_faults(page) -> list[str]:
    """Return the visible texts, in HTML, SVG or a control, whose contrast is below WCAG's level AA.

    Text stands on the colours behind it: those of the elements that hold it, and of shapes that an SVG draws before it.
    Background images, and what scripts write on a canvas, are not seen.
    """
    return _run(page, CONTRAST)


def name_faults(page) -> list[str]:
    """Return pictures without an accessible name, inputs without a label, tables without a caption, headers without scope."""
    return _run(page, NAMES)


def axe_faults(page) -> list[str]:
    """Return what axe-core finds: landmarks, headings, roles, names, states. It does not look at contrast here."""
    found = Axe().run(page, options={"resultTypes": ["violations"], "rules": {"color-contrast": {"enabled": False}}})
    violations = found.response["violations"]
    return [f"{rule['help']}: {node['html'][:120]}" for rule in violations for node in rule["nodes"]]


def page_faults(page) -> list[str]:
    """Return what all the checks above find."""
    return [*overflow_faults(page), *contrast_faults(page), *name_faults(page), *axe_faults(page)]


def tab_stops(page, limit: int = 100) -> tuple[list[str], list[str]]:
    """Press Tab from the top of the page, at most ``limit`` times; return what got the focus, and the faults.

    A fault is a stop that the eye cannot see (hidden, or without outline and shadow), or one that comes before the last
    one in the document.
    """
    page.evaluate("() => { window.htsrFirstStop = window.htsrLastStop = undefined; document.activeElement?.blur(); }")
    stops: list[str] = []
    faults: list[str] = []
    for _ in range(limit):
        page.keyboard.press("Tab")
        stop = _run(page, FOCUSED)
        if stop is None:
            break
        stops.append(stop["name"])
        faults += [f"{stop['name']} {fault}" for fault, right in (
            ("has the focus, but is hidden", stop["shown"]),
            ("does not show that it has the focus", stop["ring"]),
            ("gets the focus after what follows it", stop["later"]),
        ) if not right]  # fmt: skip
    return stops, faults


def download(page, button: str) -> tuple[str, str]:
    """Click a button, given by its selector; return the name and the text of the file that the page then saves."""
    with page.expect_download() as saved:
        page.click(button)
    return saved.value.suggested_filename, saved.value.path().read_text(encoding="utf-8")
