// Copies what a field has. Without this script the field is there to be marked and copied.
"use strict";
(() => {
  if (!navigator.clipboard) return;
  const show = () => { for (const button of document.querySelectorAll("[data-copies]")) button.hidden = false; };
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copies]");
    if (!button) return;
    const field = document.getElementById(button.dataset.copies);
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      button.textContent = "Copied";
    } catch { /* it is marked, so the keyboard copies it */ }
  });
  new MutationObserver(show).observe(document.body, {childList: true, subtree: true}); // the page is kept up to date
  show();
})();
