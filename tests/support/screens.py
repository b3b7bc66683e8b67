"""What a browser measures of a mail or page: where things end, how wide it is, and how faint its texts are."""

from __future__ import annotations

from typing import Any

CONTRAST = 4.5  # WCAG 2.2, level AA, of text that isn't large

FAINT = """least => {
  const parse = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a] }
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0)
  const over = (top, under) => [0, 1, 2].map(at => top[at] * top[3] + under[at] * (1 - top[3])).concat(1)
  const ground = node => {
    const layers = []
    for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor))
    const paper = matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18, 1] : [255, 255, 255, 1]
    return layers.reverse().reduce((under, top) => over(top, under), paper)
  }
  const found = new Set()
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement
    const text = walker.currentNode.textContent.trim()
    if (!text || ['STYLE', 'SCRIPT'].includes(node.tagName) || !node.checkVisibility()) continue
    if (node.closest('[aria-hidden=true], [disabled]')) continue
    const under = ground(node), ink = over(parse(getComputedStyle(node).color), under)
    const [low, high] = [light(under), light(ink)].sort((a, b) => a - b)
    const ratio = (high + 0.05) / (low + 0.05)
    if (ratio < least) found.add(`${text.slice(0, 40)}: ${ratio.toFixed(1)} of ${least}`)
  }
  return [...found]
}"""


async def bottom_of(page: Any, selector: str) -> float:
    """Return where the first such element ends, in CSS pixels from the top of the document."""
    box = await page.locator(selector).first.bounding_box()
    assert box is not None, f"{selector} isn't shown"
    scrolled: float = await page.evaluate("window.scrollY")
    return float(box["y"] + box["height"]) + scrolled


async def is_too_wide(page: Any) -> bool:
    """Return whether the window scrolls sideways."""
    wide: bool = await page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    return wide


async def faint_texts(page: Any) -> list[str]:
    """List the texts on too little contrast, each with its ratio."""
    found: list[str] = await page.evaluate(FAINT, CONTRAST)
    return found
