// Keys for lists: j and k move, o opens, x marks, / searches, ? shows the keys. None decides anything. Without this
// script, and for people who have turned keys off at /me, everything works by Tab and Enter.
"use strict";
(() => {
  const KEYS = [["j", "next"], ["k", "previous"], ["o", "open"], ["x", "mark"], ["/", "search"], ["?", "show these keys"]];
  const rows = () => [...document.querySelectorAll("tr[data-row]")];
  const link = (row) => row.querySelector("th a[href]");

  // The row with the focus in it; without one, the row that had it last.
  let last = null;
  function current() {
    const row = document.activeElement?.closest?.("tr[data-row]");
    return row ?? (last && rows().find((each) => link(each).getAttribute("href") === last)) ?? null;
  }

  function move(by) {
    const all = rows(), at = all.indexOf(current());
    const row = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(Math.max(at + by, 0), all.length - 1)];
    if (!row) return;
    last = link(row).getAttribute("href");
    link(row).focus();
    row.scrollIntoView({block: "nearest"});
  }

  function mark() {
    const box = current()?.querySelector("input[type=checkbox]");
    if (box) box.click();
  }

  let dialog = null;
  function help() {
    if (dialog?.open) return dialog.close();
    if (!dialog) {
      dialog = document.createElement("dialog");
      dialog.setAttribute("aria-labelledby", "keys-title");
      const title = document.createElement("h2"), list = document.createElement("dl"), foot = document.createElement("p");
      title.id = "keys-title";
      title.textContent = "Keys";
      list.className = "keys";
      for (const [key, what] of KEYS) {
        const line = document.createElement("div"), name = document.createElement("dt"), text = document.createElement("dd");
        name.append(Object.assign(document.createElement("kbd"), {textContent: key}));
        text.textContent = what;
        line.append(name, text);
        list.append(line);
      }
      const close = Object.assign(document.createElement("button"), {textContent: "Close", type: "button", autofocus: true});
      close.addEventListener("click", () => dialog.close());
      const you = document.querySelector("header nav a[href$='/me']");
      if (you) {
        const off = Object.assign(document.createElement("a"), {href: `${you.getAttribute("href")}#keys`, textContent: "Turn keys off"});
        foot.append(off);
      }
      dialog.append(title, list, foot, close);
      document.body.append(dialog);
    }
    dialog.showModal();
  }

  const DOES = {
    j: () => move(1),
    k: () => move(-1),
    o: () => { const row = current(); if (row) link(row).click(); },
    x: mark,
    "/": () => {
      const field = document.querySelector("[data-search]");
      field?.closest("details")?.setAttribute("open", ""); // on a phone, the search is folded
      field?.focus();
    },
    "?": help,
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
    const target = event.target;
    if (target.isContentEditable || target.matches?.("textarea, select, input:not([type=checkbox], [type=radio])")) return;
    if (dialog?.open && event.key !== "?") return;
    const does = DOES[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  });
})();
