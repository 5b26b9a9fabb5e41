// Keeps an open page up to date. Everything works without it.
"use strict";

const main = document.getElementById("content");
const state = document.getElementById("live-state");

// A duration to its two largest units, as the pages write it.
const span = (seconds) => {
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  const minutes = Math.floor((seconds % 3600) / 60);
  if (seconds < 36000) return `${Math.floor(seconds / 3600)}h` + (minutes ? ` ${minutes}m` : "");
  return seconds < 172800 ? `${Math.floor(seconds / 3600)}h` : `${Math.floor(seconds / 86400)}d`;
};

const count = () => {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const seconds = Math.round((Date.now() - Date.parse(time.dateTime)) / 1000);
    const text = seconds >= 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
    if (time.textContent !== text) time.textContent = text;
  }
};

// Replaces the content of an element, and keeps the focus where it is.
const replace = (id, html) => {
  const element = document.getElementById(id);
  if (!element) return;
  const focus = element.contains(document.activeElement) ? document.activeElement : null;
  const path = focus && (focus.id ? `#${CSS.escape(focus.id)}` : focus.href && `a[href="${CSS.escape(focus.getAttribute("href"))}"]`);
  const open = [...element.querySelectorAll("details[open][id]")].map((details) => details.id);
  element.innerHTML = html;
  for (const name of open) document.getElementById(name)?.setAttribute("open", "");
  if (path) element.querySelector(path)?.focus({ preventScroll: true });
};

const listen = () => {
  const url = new URL(location.href);
  url.searchParams.set("format", "live");
  url.searchParams.set("have", main.dataset.live);
  const source = new EventSource(url);
  source.addEventListener("open", () => { state.textContent = "Live"; });
  source.addEventListener("error", () => {
    state.textContent = source.readyState === EventSource.CLOSED ? "Not live: load the page again" : "Connecting again…";
  });
  source.addEventListener("part", (event) => {
    const end = event.data.indexOf("\n");
    replace(event.data.slice(0, end), event.data.slice(end + 1));
    count();
  });
  // A page that is kept for the way back must not keep its connection.
  addEventListener("pagehide", () => source.close(), { once: true });
};

if (main.dataset.live !== undefined) {
  listen();
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}
setInterval(count, 1000);
