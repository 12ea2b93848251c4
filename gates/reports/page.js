(() => {
  const search = document.querySelector("input[type=search]");
  const boxes = [...document.querySelectorAll(".tools input[type=checkbox]")];
  const found = document.getElementById("found");
  let groups = null;
  const read = () => groups ??= [...document.querySelectorAll(".group")].map((group) => ({
    group,
    rows: [...group.querySelectorAll(".row")].map((row) => ({
      row, outcome: row.dataset.outcome, cause: (row.dataset.cause || "").toLowerCase(), text: row.textContent.toLowerCase(),
    })),
  }));
  const matches = (one, word) => {
    const [, key, rest] = /^(outcome|cause):(.*)$/.exec(word) || [];
    if (key === "outcome") return one.outcome.startsWith(rest);
    return key === "cause" ? one.cause.includes(rest) : one.text.includes(word);
  };
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = new Set(boxes.filter((b) => b.checked).map((b) => b.value));
    const all = words.length === 0 && wanted.size === boxes.length;
    let total = 0;
    for (const { group, rows } of read()) {
      let shown = 0;
      for (const one of rows) {
        const hidden = !wanted.has(one.outcome) || !words.every((w) => matches(one, w));
        if (one.row.hidden !== hidden) one.row.hidden = hidden;
        shown += hidden ? 0 : 1;
      }
      group.hidden = shown === 0;
      if (!all) group.open = shown > 0;
      total += shown;
    }
    found.textContent = all ? "" : `${total} shown`;
  };
  const opened = () => {
    const node = document.getElementById(location.hash.slice(1));
    if (!node) return;
    for (let at = node; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    node.scrollIntoView();
  };
  let waiting = 0;
  const soon = () => { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(apply); };
  if (search) {
    search.addEventListener("input", soon);
    boxes.forEach((b) => b.addEventListener("change", apply));
    document.addEventListener("keydown", (e) => {
      const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName);
      if (e.key === "/" && !typing && !e.ctrlKey && !e.metaKey && !e.altKey) { e.preventDefault(); search.focus(); }
      if (e.key === "Escape" && e.target === search) { search.value = ""; apply(); }
    });
  }
  document.addEventListener("click", async (e) => {
    const button = e.target.closest("button");
    if (button?.dataset.filter && search) {
      search.value = button.dataset.filter;
      apply();
      search.scrollIntoView();
      search.focus({ preventScroll: true });
    }
    if (!button?.classList.contains("copy")) return;
    const text = button.parentElement.querySelector("pre");
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  window.addEventListener("hashchange", opened);
  opened();
})();
