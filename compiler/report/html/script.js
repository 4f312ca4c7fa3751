"use strict";
// Without this the page is whole: every row of the table and every block's title are in it.
{
  const form = document.getElementById("filters");
  if (form) {
    const words = document.getElementById("filter-text");
    const kind = document.getElementById("filter-kind");
    const count = document.getElementById("filter-count");
    const rows = [...document.querySelectorAll("#layer-table tbody tr")];
    const show = () => {
      const wanted = words.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        const fits =
          (!kind.value || row.dataset.kind === kind.value) &&
          row.textContent.toLowerCase().includes(wanted);
        row.hidden = !fits;
        shown += fits;
      }
      count.textContent =
        shown === rows.length ? `${shown} rows` : `${shown} of ${rows.length} rows`;
    };
    form.hidden = false;
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    show();
  }
  const detail = document.getElementById("detail");
  if (detail) {
    const hint = "Point at a block, touch it or move with Tab: what happened to it stands here.";
    detail.hidden = false;
    detail.textContent = hint;
    const tell = (event) => {
      const block = event.target.closest(".block");
      if (block) detail.textContent = block.getAttribute("aria-label");
    };
    for (const kind of ["focusin", "pointerover", "click"]) document.addEventListener(kind, tell);
  }
}
