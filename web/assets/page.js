"use strict";
// The server renders everything. This follows the event stream, fetches the page again when something happened,
// and puts what changed into its place. Without it the page is a list that one reloads.
(() => {
  const main = document.querySelector("main"), live = document.getElementById("live");
  const skew = Number(main.dataset.now) - Date.now(); // the appliance's clock is the true one
  const two = n => String(n).padStart(2, "0");

  function span(ms) {
    const s = Math.max(0, Math.floor(ms / 1000)), m = Math.floor(s / 60), h = Math.floor(m / 60);
    if (s < 60) return `${s} s`;
    if (h < 1) return `${m} min ${two(s % 60)} s`;
    return h < 48 ? `${h} h ${two(m % 60)} min` : `${Math.floor(h / 24)} days`;
  }
  setInterval(() => {
    for (const t of document.querySelectorAll("time[data-from]")) t.textContent = span(Date.now() + skew - t.dataset.from);
  }, 1000);

  // bare is an element without what this script changes by itself.
  function bare(node) {
    const copy = node.cloneNode(true);
    copy.classList.remove("fresh");
    if (!copy.classList.length) copy.removeAttribute("class");
    for (const t of copy.querySelectorAll("time[data-from]")) t.textContent = "";
    for (const d of copy.querySelectorAll("details")) d.replaceWith("");
    return copy;
  }

  // sync makes the children of old those of fresh, told apart by id, touching only what differs.
  function sync(old, fresh) {
    const had = new Map([...old.children].map(c => [c.id, c]));
    let after = null;
    for (const child of [...fresh.children]) {
      let mine = had.get(child.id);
      had.delete(child.id);
      if (!mine) {
        if (child.matches("li")) child.classList.add("fresh");
        mine = child;
      } else if (mine.dataset.list !== undefined && child.dataset.list !== undefined) {
        sync(mine, child);
      } else if (!bare(mine).isEqualNode(bare(child))) {
        const open = mine.querySelector("details[open]");
        if (open) child.querySelector("details")?.replaceWith(open);
        mine.replaceWith(child);
        mine = child;
      }
      const place = after ? after.nextElementSibling : old.firstElementChild;
      if (place !== mine) old.insertBefore(mine, place);
      after = mine;
    }
    for (const gone of had.values()) gone.remove();
  }

  async function load(path) {
    const answer = await fetch(path, { headers: { Accept: "text/html" } });
    return new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
  }

  async function unfold(details) {
    const fresh = (await load(details.dataset.fromPage)).querySelector("#timeline");
    if (!fresh) return;
    let list = details.querySelector("ol");
    const end = !list || list.scrollTop + list.clientHeight > list.scrollHeight - 20;
    if (!list) {
      details.querySelector("p").remove();
      list = details.appendChild(document.createElement("ol"));
      list.className = "timeline";
      list.append(...fresh.children);
    } else sync(list, fresh);
    if (end) list.scrollTop = list.scrollHeight;
  }
  document.addEventListener("toggle", e => { if (e.target.open && e.target.dataset.fromPage) unfold(e.target).catch(() => {}); }, true);

  let busy = false, again = false;
  async function refresh() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      sync(main, await load(location.href));
      await Promise.all([...document.querySelectorAll("details[open]")].map(unfold));
    } catch { /* the stream tells when the appliance is away */ }
    setTimeout(() => { busy = false; if (again) { again = false; refresh(); } }, 400);
  }
  setInterval(() => { if (!document.hidden) refresh(); }, 5000); // silence is news, too

  const events = new EventSource("/api/v1/events/stream?since=" + main.dataset.seq);
  const say = (word, off) => { live.hidden = false; live.textContent = word; live.classList.toggle("off", off); };
  events.onopen = () => { say("live", false); refresh(); };
  events.onmessage = refresh;
  events.onerror = () => say("the appliance does not answer", true);
})();
