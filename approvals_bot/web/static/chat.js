// Puts in place what the chat's stream says is new. Without this script the page is complete: forms post, and a reload
// shows what there is. The server alone makes HTML, so an open page and a reloaded one are the same.
"use strict";
(() => {
  const turns = document.getElementById("turns");
  const status = document.getElementById("status");
  if (!turns || !window.fetch) return;
  document.body.classList.add("scripted");
  const seen = new Map(); // what the server said last of each part, by its name
  const streams = new Set(); // the turns whose streams are open
  const FIRST = 500, LONGEST = 3000; // milliseconds before it is tried again
  const SILENCE = 40000; // a stream says something every 15 seconds
  let reading = null, again = false;

  const partsOf = (root) => [...root.querySelectorAll("[data-part]")];
  for (const part of partsOf(turns)) seen.set(part.dataset.part, part.outerHTML);

  // Keep what somebody has typed or has the focus on in a part that is replaced.
  function replace(old, made) {
    const active = document.activeElement;
    const focus = active && old.contains(active) ? active : null;
    for (const field of old.querySelectorAll("textarea, input:not([type=hidden])")) {
      const same = field.id && made.querySelector(`#${CSS.escape(field.id)}`);
      if (same) same.value = field.value;
    }
    if (old.querySelector("details.edit[open]")) made.querySelector("details.edit")?.setAttribute("open", "");
    const again = focus && (focus.id ? made.querySelector(`#${CSS.escape(focus.id)}`)
      : focus.value ? made.querySelector(`button[value="${CSS.escape(focus.value)}"]`) : null);
    const at = again && focus.selectionStart;
    old.replaceWith(made);
    if (again) {
      again.focus();
      if (at !== undefined && again.setSelectionRange) again.setSelectionRange(at, focus.selectionEnd);
    } else if (focus) {
      made.tabIndex = -1;
      made.focus({preventScroll: true}); // the pressed button is gone; its result has the focus
      made.addEventListener("blur", () => made.removeAttribute("tabindex"), {once: true});
    }
  }

  function show(page) {
    const fresh = page.getElementById("turns");
    if (!fresh) return;
    if (fresh.dataset.stream) turns.dataset.stream = fresh.dataset.stream;
    for (const turn of [...fresh.children]) {
      const here = document.getElementById(turn.id);
      if (!here) {
        for (const part of partsOf(turn)) seen.set(part.dataset.part, part.outerHTML);
        turns.append(document.adoptNode(turn));
        continue;
      }
      if (turn.dataset.open) here.dataset.open = turn.dataset.open; else delete here.dataset.open;
      const wanted = partsOf(turn), names = new Set(wanted.map((part) => part.dataset.part));
      const present = new Map(partsOf(here).map((part) => [part.dataset.part, part]));
      for (const [name, part] of present) if (!names.has(name)) { part.remove(); seen.delete(name); }
      let before = null;
      for (const part of wanted) {
        const name = part.dataset.part, html = part.outerHTML, old = present.get(name);
        let now = old;
        if (!old || seen.get(name) !== html) {
          now = document.adoptNode(part);
          if (!old && now.id) document.getElementById(now.id)?.remove(); // as it was streamed
          if (old) replace(old, now);
          else if (before) before.after(now); else here.prepend(now);
          const state = now.querySelector(".state");
          if (state && old) status.textContent = state.textContent.trim().replace(/\s+/g, " ");
          seen.set(name, html);
        }
        before = now;
      }
    }
    listen();
  }

  const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  // Say in the page that the service is away.
  function reached(isThere, said = "The service can't be reached. This page carries on as soon as it's back.") {
    let line = document.getElementById("away");
    if (isThere) { line?.remove(); return; }
    if (!line) {
      line = document.createElement("div");
      line.id = "away";
      line.className = "notice refused";
      line.setAttribute("role", "alert");
      document.getElementById("compose").before(line);
    }
    line.textContent = said;
  }

  // One read at a time; what comes meanwhile makes one more. It goes on until the service answers.
  async function look() {
    if (reading) { again = true; return reading; }
    reading = (async () => {
      let pause = FIRST;
      do {
        again = false;
        try {
          const answer = await fetch(location.pathname, {headers: {accept: "text/html"}});
          if (answer.status >= 500) throw answer;
          reached(answer.ok, "This page can't be updated any more. Load it again to see why.");
          if (answer.ok) show(new DOMParser().parseFromString(await answer.text(), "text/html"));
        } catch {
          reached(false);
          again = true;
          await wait(pause);
          pause = Math.min(pause * 2, LONGEST);
        }
      } while (again);
      reading = null;
    })();
    return reading;
  }

  // Show a text as the model writes it; what the log has replaces it. It starts again after a crash.
  function write(turn, chunk) {
    const here = document.getElementById(turn), id = `${turn}-${chunk.id}`;
    if (!here || chunk.type === "text-end") return;
    let part = document.getElementById(id);
    if (part?.dataset.part) return; // it is whole
    if (!part) {
      part = document.createElement("article");
      part.id = id;
      part.className = "part text live";
      part.append(document.createElement("p"));
      part.firstChild.className = "long";
      here.insertBefore(part, here.querySelector(".writing"));
    }
    if (chunk.type === "text-start") part.firstChild.textContent = "";
    else part.firstChild.append(chunk.delta);
  }

  function take(turn, line) {
    if (!line.startsWith("data: {")) return;
    const chunk = JSON.parse(line.slice(6));
    if (chunk.type.startsWith("text-")) write(turn, chunk);
    if (chunk.type !== "text-start" && chunk.type !== "text-delta") look();
  }

  async function follow(turn) {
    streams.add(turn);
    let pause = FIRST;
    for (;;) {
      const given = new AbortController();
      let silence = 0;
      const alive = () => { clearTimeout(silence); silence = setTimeout(() => given.abort(), SILENCE); };
      alive();
      try {
        const answer = await fetch(`${turns.dataset.stream}&turn=${encodeURIComponent(turn)}`, {signal: given.signal});
        if (answer.status === 204 || answer.status >= 400 && answer.status < 500) break;
        if (answer.ok) {
          pause = FIRST;
          reached(true);
          const reader = answer.body.getReader(), text = new TextDecoder();
          let over = false, rest = "";
          for (let part; !(part = await reader.read()).done;) {
            alive();
            const lines = (rest + text.decode(part.value, {stream: true})).split("\n");
            rest = lines.pop();
            for (const line of lines) take(turn, line);
            over ||= lines.includes("data: [DONE]");
          }
          if (over) break;
        }
        reached(false);
      } catch { reached(false); }
      clearTimeout(silence);
      await wait(pause);
      pause = Math.min(pause * 2, LONGEST);
    }
    streams.delete(turn);
    await look();
    for (const part of turns.querySelectorAll(`#${CSS.escape(turn)} > .live`)) part.remove(); // it will never be whole
  }

  function listen() {
    if (!turns.dataset.stream) return;
    for (const turn of turns.querySelectorAll("[data-open]")) {
      if (!streams.has(turn.dataset.open)) follow(turn.dataset.open);
    }
  }

  document.addEventListener("keydown", (event) => {
    const form = event.target.closest(".compose");
    if (!form || event.target.name !== "text" || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit(form.querySelector(".send"));
  });

  // Forms are sent from here, once, and say so meanwhile.
  document.addEventListener("submit", async (event) => {
    const form = event.target, button = event.submitter;
    if (!form.matches(".answer, .compose")) return;
    event.preventDefault();
    if (form.getAttribute("aria-busy") === "true") return;
    form.setAttribute("aria-busy", "true");
    const body = new URLSearchParams(new FormData(form, button && !button.hidden ? button : undefined));
    const words = button ? button.innerHTML : "";
    if (button && form.matches(".answer")) button.textContent = "Submitting …";
    try {
      const answer = await fetch(form.action, {method: "POST", body});
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (answer.status >= 500 && !page.getElementById("turns")) throw answer;
      if (form.matches(".compose") && answer.ok) {
        history.replaceState(null, "", new URL(answer.url).pathname);
        const fresh = page.querySelector(".compose");
        if (fresh) {
          form.replaceWith(document.adoptNode(fresh));
          fresh.elements.text.focus({preventScroll: true});
        }
        for (const each of document.querySelectorAll(".earlier")) each.remove();
      }
      for (const old of document.querySelectorAll("main > .notice")) old.remove();
      const notice = page.querySelector("main > .notice");
      if (notice) document.getElementById("main").prepend(document.adoptNode(notice));
      show(page);
      if (form.matches(".compose") && turns.lastElementChild) turns.lastElementChild.scrollIntoView({block: "nearest"});
      reached(true);
    } catch {
      reached(false, "That wasn't sent: the service can't be reached. Your text is still here. Try again in a moment.");
    } finally {
      form.removeAttribute("aria-busy");
      if (button && button.isConnected) button.innerHTML = words;
    }
  });

  listen();
})();
