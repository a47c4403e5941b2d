"use strict";

/* Times in the reader's zone, and the live feed. Every page works without this script; it shows UTC and needs a
   reload for news then. What is on the page is brought up to date where it stands; what is new, or would move, waits
   behind a button. */
(() => {
  const ANNOUNCE_MS = 5000; // a screen reader is told at most so often
  const REFRESH_MS = 1500; // and the page is brought up to date
  const RETRY_MS = 5000;
  const FRESH_MS = 6000;
  const PULSE_MS = 15000; // an incident goes on covering customers, and nobody is told of each

  const words = document.body.dataset;
  const news = document.getElementById("news");
  const announce = document.getElementById("announce");
  const live = document.getElementById("live");
  const liveText = document.getElementById("live-text");
  const pause = document.getElementById("pause");

  // The reader's own way of writing the page's language, where the browser names one: en-GB rather than en.
  const lang = navigator.languages.find((one) => one.split("-")[0] === document.documentElement.lang) ?? document.documentElement.lang;
  const year = new Date().getFullYear();
  const short = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
  const thisYear = new Intl.DateTimeFormat(lang, short);
  const otherYear = new Intl.DateTimeFormat(lang, { ...short, weekday: undefined, year: "numeric" });

  function localTimes(root) {
    for (const time of root.querySelectorAll("time[data-moment]")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.valueOf())) continue;
      time.title = time.dateTime;
      time.textContent = (moment.getFullYear() === year ? thisYear : otherYear).format(moment);
    }
    const zone = document.getElementById("zone");
    zone.textContent = words.zone.replace("{zone}", thisYear.resolvedOptions().timeZone);
  }

  // What changed since the page was made: case id -> { isNew, seq }.
  const waiting = new Map();
  let source = null;
  let seen = "";
  let announceTimer = null;
  let refreshTimer = null;
  let isPaused = false;
  const title = () => document.title.replace(/^\(\d+\) /, "");
  const about = () => document.querySelector("main[data-live]").dataset.live;
  const isInPlace = () => about() === "feed" || about() === "network";

  function summary() {
    if (about() !== "feed") return words.newsCase;
    const fresh = [...waiting.values()].filter((change) => change.isNew).length;
    const changed = waiting.size - fresh;
    const parts = [];
    if (fresh) parts.push(words.newsNew.replace("{n}", fresh));
    if (changed) parts.push(words.newsChanged.replace("{n}", changed));
    return parts.join(", ");
  }

  function tell() {
    news.hidden = waiting.size === 0;
    document.title = waiting.size ? `(${waiting.size}) ${title()}` : title();
    if (!waiting.size) return;
    news.textContent = words.newsShow.replace("{what}", summary());
    announceTimer ??= setTimeout(() => {
      announceTimer = null;
      if (waiting.size) announce.textContent = summary();
    }, ANNOUNCE_MS);
  }

  function take(event) {
    seen = event.lastEventId;
    const change = JSON.parse(event.data);
    if (!isInPlace() && about() !== change.case_id) return;
    const isNew = waiting.get(change.case_id)?.isNew || (change.type.endsWith(".opened") && change.revision === 1);
    waiting.set(change.case_id, { isNew, seq: Number(seen) });
    if (isInPlace()) refreshTimer ??= setTimeout(refresh, REFRESH_MS);
    else tell();
  }

  async function newest() {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (answer.status === 401) end();
    if (!answer.ok) throw new Error(String(answer.status));
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  // Brings what stands on the page up to date without moving anything: numbers, badges, pictures, incidents.
  async function refresh() {
    let page;
    try {
      page = await newest();
    } catch {
      refreshTimer = isPaused ? null : setTimeout(refresh, RETRY_MS);
      return;
    }
    refreshTimer = null;
    if (isPaused) return;
    localTimes(page);
    const under = document.querySelector("li[data-case]:hover, li[data-case]:focus-within");
    const top = under?.getBoundingClientRect().top;
    if (about() === "network") swap(document.querySelector("main"), page.querySelector("main"));
    for (const id of ["summary", "incidents"]) swap(document.getElementById(id), page.getElementById(id));
    const shown = new Map([...document.querySelectorAll("li[data-case]")].map((one) => [one.dataset.case, one]));
    const now = new Map([...page.querySelectorAll("li[data-case]")].map((one) => [one.dataset.case, one]));
    for (const [id, one] of shown) {
      if (now.has(id) && swap(one, now.get(id))) one.className = now.get(id).className;
    }
    // What grew above the case under the pointer does not push it away.
    if (under) scrollBy({ top: under.getBoundingClientRect().top - top, behavior: "instant" });
    // What stands in the same place and is up to date needs no button.
    const upTo = Number(page.querySelector("main[data-live]").dataset.seq);
    const before = [...shown.keys()];
    const after = [...now.keys()];
    const same = before.length === after.length && before.every((id, place) => id === after[place]);
    for (const [id, change] of waiting) {
      if (change.seq <= upTo && (same || (shown.has(id) && now.has(id) && !moved(id, before, after)))) waiting.delete(id);
    }
    tell();
  }

  // Whether a case stands elsewhere among those that both lists have.
  function moved(id, before, after) {
    const common = new Set(after.filter((one) => before.includes(one)));
    const rank = (list) => list.filter((one) => common.has(one)).indexOf(id);
    return rank(before) !== rank(after);
  }

  function swap(old, fresh) {
    if (!old || !fresh || old.innerHTML === fresh.innerHTML) return false;
    const isUsed = old !== document.activeElement && old.contains(document.activeElement);
    if (isUsed || (old.id === "incidents" && old.matches(":hover"))) return false;
    old.replaceChildren(...[...fresh.childNodes].map((node) => document.adoptNode(node.cloneNode(true))));
    return true;
  }

  function state(word, text) {
    live.dataset.state = word;
    liveText.textContent = text;
  }

  function close() {
    source?.close();
    source = null;
  }

  // The session is over: nothing more will come before a new login, and a reload leads to it.
  function end() {
    close();
    isPaused = true;
    state("ended", words.liveEnded);
    pause.textContent = words.logIn;
  }

  function listen() {
    if (source || document.hidden || isPaused) return;
    source = new EventSource(`/events?since=${encodeURIComponent(seen)}`);
    source.addEventListener("open", () => state("on", words.liveOn));
    source.addEventListener("change", take);
    source.addEventListener("resync", () => location.reload());
    source.addEventListener("error", async () => {
      state("lost", words.liveLost);
      if (source?.readyState !== EventSource.CLOSED) return;
      source = null;
      await newest().catch(() => null);
      setTimeout(listen, RETRY_MS);
    });
  }

  // A hidden tab gives its connection back: a browser has six for one address.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      listen();
    } else if (source) {
      close();
      state("off", words.livePaused);
    }
  });

  pause.addEventListener("click", () => {
    if (live.dataset.state === "ended") {
      location.reload();
      return;
    }
    isPaused = !isPaused;
    pause.textContent = isPaused ? words.liveGo : words.liveStop;
    if (isPaused) {
      close();
      state("off", words.livePaused);
    } else {
      listen();
      if (isInPlace()) refreshTimer ??= setTimeout(refresh, 0);
    }
  });

  setInterval(() => {
    if (source && isInPlace() && document.querySelector(".incident, .gantt")) refreshTimer ??= setTimeout(refresh, 0);
  }, PULSE_MS);

  async function show() {
    const known = new Set([...document.querySelectorAll("li[data-case]")].map((one) => one.dataset.case));
    try {
      const page = await newest();
      const main = document.adoptNode(page.querySelector("main[data-live]"));
      document.querySelector("main").replaceWith(main);
      document.title = page.title;
      localTimes(main);
      main.focus({ preventScroll: true });
    } catch {
      location.reload();
      return;
    }
    for (const one of document.querySelectorAll("li[data-case]")) {
      if (known.has(one.dataset.case)) continue;
      one.classList.add("fresh");
      setTimeout(() => one.classList.remove("fresh"), FRESH_MS);
    }
    // What came while the page was on its way is not on it.
    const shown = Number(document.querySelector("main").dataset.seq);
    for (const [id, change] of waiting) if (change.seq <= shown) waiting.delete(id);
    announce.textContent = "";
    tell();
  }

  localTimes(document);
  const main = document.querySelector("main[data-live]");
  if (!main) {
    live.hidden = true;
    return;
  }
  seen = main.dataset.seq;
  // What was recorded is said once, not again at every reload.
  if (location.pathname.startsWith("/cases/") && location.search) history.replaceState(null, "", location.pathname);
  pause.hidden = false;
  news.addEventListener("click", show);
  listen();
})();
