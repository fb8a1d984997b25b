"""How fast a page is, on its own clock. Each function returns the median of several runs."""

from collections.abc import Sequence
from statistics import median

OPENING = """async ([click, shown]) => {
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const opener = document.querySelector(click);
  const start = performance.now();
  opener.click();
  do {
    await painted();
    if (performance.now() - start > 5000) throw Error(`${click} did not show ${shown} within five seconds`);
  } while (!document.querySelector(shown)?.checkVisibility());
  return performance.now() - start;
}"""

SWEEP = """([selector, steps]) => new Promise((done) => {
  const slider = document.querySelector(selector);
  const [low, high] = [Number(slider.min || 0), Number(slider.max || 100)];
  const positions = high - low;
  let step = 0;
  let start;
  const move = (now) => {
    start ??= now;
    if (step === steps) return done((1000 * steps) / (now - start));
    const place = ++step % (2 * positions);
    slider.value = low + (place <= positions ? place : 2 * positions - place);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    requestAnimationFrame(move);
  };
  requestAnimationFrame(move);
})"""


def milliseconds_to_open(page, repeats: int = 5) -> float:
    """Return the time from the start of navigation to the mark that the page sets when its first screen is drawn.

    The page calls ``performance.mark("htsrReady")``; the browser already runs.
    """
    times = []
    for _ in range(repeats):
        page.reload()
        page.wait_for_function("() => performance.getEntriesByName('htsrReady').length > 0")
        times.append(page.evaluate("performance.getEntriesByName('htsrReady')[0].startTime"))
    return median(times)


def milliseconds_to_show(page, openings: Sequence[tuple[str, str]]) -> float:
    """Return the time from a click to the frame that shows what it opens, over pairs of selectors ``(click, shown)``."""
    return median(page.evaluate(OPENING, list(pair)) for pair in openings)


def frames_per_second(page, slider: str, *, steps: int = 12, repeats: int = 5) -> float:
    """Return the frames a second while a slider, given by its selector, moves by one step in every frame.

    It moves to and fro for ``steps`` frames, ``repeats`` times. The screen itself shows 60 frames a second.
    """
    return median(page.evaluate(SWEEP, [slider, steps]) for _ in range(repeats))
