"""What somebody without a mouse meets on a page: each stop of the Tab key, in order, and whether it can be seen."""

from __future__ import annotations

from typing import Any

MOST_STOPS = 1_000
RING = 3.0  # contrast of the mark of focus, WCAG 2.2's 1.4.11
WIDTH = 2.0  # CSS pixels of it, 2.4.13

STOPS = """() => {
  const can = 'a[href], button, input:not([type=hidden]), select, textarea, summary, iframe, [tabindex]'
  const usable = e => e.checkVisibility({visibilityProperty: true}) && !e.disabled && e.tabIndex >= 0 &&
    !(e.matches('[type=radio]') && e.name && document.querySelector(`[type=radio][name="${e.name}"]:checked`) &&
      !e.checked)
  window.stops = [...document.querySelectorAll(can)].filter(usable)
  window.reached = []
  return window.stops.length
}"""

LOOK = """([contrast, width]) => {
  const it = document.activeElement
  if (!it || it === document.body) return ['', -1, []]
  const name = it.outerHTML.slice(0, 100), faults = [], style = getComputedStyle(it), box = it.getBoundingClientRect()
  const parse = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a] }
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0)
  let ground = [255, 255, 255, 1]
  for (let at = it.parentElement; at; at = at.parentElement) {
    const color = parse(getComputedStyle(at).backgroundColor)
    if (color[3] > 0.99) { ground = color; break }
  }
  if (!it.matches(':focus-visible') || style.outlineStyle === 'none') faults.push('shows no focus')
  else {
    if (parseFloat(style.outlineWidth) < width) faults.push(`its ring is ${style.outlineWidth}`)
    const [low, high] = [light(ground), light(parse(style.outlineColor))].sort((a, b) => a - b)
    const ratio = (high + 0.05) / (low + 0.05)
    if (ratio < contrast) faults.push(`its ring has a contrast of ${ratio.toFixed(1)}`)
  }
  const bar = document.querySelector('.docked')
  const edge = bar && !bar.contains(it) && getComputedStyle(bar).position === 'fixed'
    ? bar.getBoundingClientRect().top : innerHeight
  const isHidden = box.bottom < 1 || box.top > edge - 1 || Math.min(box.bottom, box.top + 200) > edge + 1
  if (isHidden) faults.push('is out of sight')
  return [name, window.stops.indexOf(it), faults]
}"""


async def faults_by_keyboard(page: Any) -> list[str]:
    """Press Tab from the top of the page until it is left. Returns what is unreachable, out of order or unseen."""
    await page.evaluate("document.activeElement?.blur?.(); scrollTo(0, 0); getSelection().removeAllRanges()")
    await page.evaluate("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
    stops: int = await page.evaluate(STOPS)
    found, reached = list[str](), list[int]()
    for _ in range(MOST_STOPS):
        await page.keyboard.press("Tab")
        name, at, faults = await page.evaluate(LOOK, [RING, WIDTH])
        if not name or at in reached[:1]:
            break
        if reached[-1:] == [at] and 'type="date' in name:
            continue  # its day, month, year and calendar are stops of their own, which the browser marks
        found += [f"{name} {fault}" for fault in faults]
        if at in reached:
            found.append(f"{name} holds the focus")
            break
        reached.append(at)
    known = [at for at in reached if at >= 0]
    if known != sorted(known):
        found.append(f"the order jumps: {known}")
    missed = set(range(stops)) - set(known)
    for at in sorted(missed):
        found.append("never reached: " + await page.evaluate("at => stops[at].outerHTML.slice(0, 100)", at))
    return found
