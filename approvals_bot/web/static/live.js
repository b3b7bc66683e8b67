// Keeps a page up to date: when the service says that it has changed, it is fetched again and put in place. Without
// this script the page is complete, and shows changes when it is loaded again.
"use strict";
(() => {
  const stream = document.currentScript.dataset.stream;
  if (!stream || !window.EventSource || !window.fetch) return;
  const said = document.createElement("p"); // what a screen reader hears
  said.className = "unseen";
  said.setAttribute("role", "status");
  document.body.append(said);

  const main = () => document.getElementById("main");
  // What a page says, but for what is other at each load: how long a request has waited, and the tokens of forms.
  const steady = (page) => {
    const copy = page.cloneNode(true);
    for (const each of copy.querySelectorAll("[data-now], [name=form_token]")) each.remove();
    return copy.innerHTML;
  };
  // What a person decides about, while they can: it never becomes something else under a finger that is about to press.
  const decided = (page) => page.querySelector("form.choices") &&
    [...page.querySelectorAll("h1, .fields, details.text")].map((each) => each.textContent).join();
  let served = steady(main()); // as the service sent it
  let source = null, reading = false, again = false;

  // Whether somebody is in the middle of something that a new page would take away.
  function isBusy() {
    const active = document.activeElement;
    if (active && main().contains(active) && active.matches("textarea, select, input:not([type=checkbox], [type=radio])")) return true;
    return [...main().querySelectorAll("input, textarea, select")].some((field) =>
      field.matches("[type=checkbox], [type=radio]") ? field.checked !== field.defaultChecked
      : field.matches("select") ? [...field.options].some((option) => option.selected !== option.defaultSelected)
      : field.value !== field.defaultValue);
  }

  function offer() {
    if (document.getElementById("changed")) return;
    const line = document.createElement("p");
    line.id = "changed";
    line.className = "note";
    line.setAttribute("role", "status");
    const link = document.createElement("a");
    link.href = location.href;
    link.textContent = "Show it";
    link.addEventListener("click", (event) => { event.preventDefault(); location.reload(); });
    line.append("This has changed. ", link);
    main().prepend(line);
  }

  // What has the focus, and what is unfolded, stays so.
  function put(page) {
    for (const old of document.querySelectorAll("[data-live]")) { // beside the main part, such as a list of places
      const same = page.getElementById(old.id);
      if (same && same.innerHTML !== old.innerHTML && !old.contains(document.activeElement)) old.innerHTML = same.innerHTML;
    }
    const fresh = page.getElementById("main");
    if (!fresh || steady(fresh) === served) return;
    const facts = decided(main()), now = decided(fresh);
    if (isBusy() || (facts && now && facts !== now)) return offer();
    const old = main(), active = document.activeElement;
    const link = active && old.contains(active) && (active.id ? `#${CSS.escape(active.id)}`
      : active.getAttribute("href") ? `a[href="${CSS.escape(active.getAttribute("href"))}"]`
      : active.value ? `button[value="${CSS.escape(active.value)}"]` : "");
    const unfolded = [...old.querySelectorAll("details[open] > summary")].map((each) => each.textContent);
    served = steady(fresh);
    old.replaceWith(document.adoptNode(fresh));
    document.title = page.title;
    for (const summary of main().querySelectorAll("details > summary")) {
      if (unfolded.includes(summary.textContent)) summary.parentElement.open = true;
    }
    if (link) main().querySelector(link)?.focus({preventScroll: true});
    said.textContent = "";
    setTimeout(() => { said.textContent = "This page was updated."; }, 50);
  }

  // One read at a time; a change meanwhile makes one more.
  async function look() {
    again = true;
    if (reading) return;
    reading = true;
    while (again) {
      again = false;
      try {
        const answer = await fetch(location.href, {headers: {accept: "text/html"}});
        if (answer.ok) put(new DOMParser().parseFromString(await answer.text(), "text/html"));
        else if (answer.status < 500) offer(); // signed out, or no longer theirs to see: a reload says which
      } catch { /* the stream tries again */ }
    }
    reading = false;
  }

  function listen() {
    if (source || document.hidden) return;
    source = new EventSource(stream);
    source.addEventListener("open", look); // what changed before it was open
    source.addEventListener("changed", look);
  }

  // A link to JSON copies it, where the browser lets us; without script it just opens.
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a.copy");
    if (!link || event.metaKey || event.ctrlKey || !navigator.clipboard) return;
    event.preventDefault();
    try {
      const answer = await fetch(link.href);
      if (!answer.ok) throw new Error(answer.statusText);
      await navigator.clipboard.writeText(await answer.text());
      said.textContent = "Copied.";
      link.textContent = "Copied";
    } catch { location.href = link.href; }
  });

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return listen();
    source?.close();
    source = null;
  });
  addEventListener("pagehide", () => { source?.close(); source = null; });
  addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
  listen();
})();
