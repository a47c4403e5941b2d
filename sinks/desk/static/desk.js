"use strict";

/* Times in the reader's zone, and the live feed. Every page works without this script; it shows UTC and needs a
   reload for news then. Nothing moves by itself: what is new waits behind a button. */
(() => {
  const ANNOUNCE_MS = 5000; // a screen reader is told at most so often
  const RETRY_MS = 5000;

  const news = document.getElementById("news");
  const announce = document.getElementById("announce");
  const live = document.getElementById("live");
  const liveText = document.getElementById("live-text");

  const year = new Date().getFullYear();
  const short = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
  const thisYear = new Intl.DateTimeFormat(undefined, short);
  const otherYear = new Intl.DateTimeFormat(undefined, { ...short, year: "numeric" });

  function localTimes(root) {
    for (const time of root.querySelectorAll("time[data-moment]")) {
      const moment = new Date(time.dateTime);
      if (Number.isNaN(moment.valueOf())) continue;
      time.title = time.dateTime;
      time.textContent = (moment.getFullYear() === year ? thisYear : otherYear).format(moment);
    }
    const zone = document.getElementById("zone");
    zone.textContent = `in your time zone, ${thisYear.resolvedOptions().timeZone}`;
  }

  // What changed since the page was made: case id -> { isNew, seq }.
  const waiting = new Map();
  let source = null;
  let seen = "";
  let announceTimer = null;
  const title = () => document.title.replace(/^\(\d+\) /, "");

  function summary() {
    const main = document.querySelector("main[data-live]");
    if (main.dataset.live !== "feed") return "This case has changed";
    const fresh = [...waiting.values()].filter((change) => change.isNew).length;
    const changed = waiting.size - fresh;
    return [fresh ? `${fresh} new` : "", changed ? `${changed} changed` : ""].filter(Boolean).join(", ");
  }

  function tell() {
    news.hidden = waiting.size === 0;
    document.title = waiting.size ? `(${waiting.size}) ${title()}` : title();
    if (!waiting.size) return;
    news.textContent = `${summary()}: show`;
    announceTimer ??= setTimeout(() => {
      announceTimer = null;
      if (waiting.size) announce.textContent = summary();
    }, ANNOUNCE_MS);
  }

  function take(event) {
    seen = event.lastEventId;
    const change = JSON.parse(event.data);
    const about = document.querySelector("main[data-live]").dataset.live;
    if (about !== "feed" && about !== change.case_id) return;
    const isNew = waiting.get(change.case_id)?.isNew || (change.type.endsWith(".opened") && change.revision === 1);
    waiting.set(change.case_id, { isNew, seq: Number(seen) });
    tell();
  }

  function state(word, text) {
    live.dataset.state = word;
    liveText.textContent = text;
  }

  function listen() {
    if (source || document.hidden) return;
    source = new EventSource(`/events?since=${encodeURIComponent(seen)}`);
    source.addEventListener("open", () => state("on", "Live"));
    source.addEventListener("change", take);
    source.addEventListener("resync", () => location.reload());
    source.addEventListener("error", () => {
      state("lost", "Connection lost: trying again");
      if (source && source.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(listen, RETRY_MS);
      }
    });
  }

  // A hidden tab gives its connection back: a browser has six for one address.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      listen();
    } else if (source) {
      source.close();
      source = null;
      state("off", "Paused");
    }
  });

  async function show() {
    try {
      const answer = await fetch(location.href, { credentials: "same-origin" });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = document.adoptNode(page.querySelector("main[data-live]"));
      document.querySelector("main").replaceWith(main);
      document.title = page.title;
      localTimes(main);
      main.focus({ preventScroll: true });
    } catch {
      location.reload();
      return;
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
  if (main.dataset.live !== "feed") history.replaceState(null, "", location.pathname);
  news.addEventListener("click", show);
  listen();
})();
