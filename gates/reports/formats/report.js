(() => {
  const search = document.querySelector("input[type=search]");
  const boxes = [...document.querySelectorAll(".tools input[type=checkbox]")];
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = new Set(boxes.filter((b) => b.checked).map((b) => b.value));
    const all = words.length === 0 && wanted.size === boxes.length;
    for (const group of document.querySelectorAll(".group")) {
      let shown = 0;
      for (const row of group.querySelectorAll(".row")) {
        const text = row.textContent.toLowerCase();
        row.hidden = !wanted.has(row.dataset.outcome) || !words.every((w) => text.includes(w));
        shown += row.hidden ? 0 : 1;
      }
      group.hidden = shown === 0;
      if (!all) group.open = shown > 0;
    }
  };
  search.addEventListener("input", apply);
  boxes.forEach((b) => b.addEventListener("change", apply));
})();
