// The only script of `seit view`: scrolling, parts loaded later, ticks, tokens, sliders.
"use strict";

const number = (value) => Number(value).toLocaleString("en-US");

// ------------------------------------------------------------------ parts that are loaded later
async function load(place, address) {
  try {
    const answer = await fetch(address, { headers: { Accept: "text/html;part" } });
    if (answer.ok) place.innerHTML = await answer.text();
    else place.replaceChildren(said(await answer.text()));
    return answer.ok;
  } catch {
    place.replaceChildren(said("the server does not answer; is `seit view` still running?"));
    return false;
  }
}

function said(text) {
  const line = document.createElement("p");
  line.className = "remark";
  line.setAttribute("role", "alert");
  line.textContent = text;
  return line;
}

function loadParts() {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      keepLoading(entry.target);
    }
  }, { rootMargin: "200px" });
  for (const place of document.querySelectorAll("[data-fragment]")) seen.observe(place);
}

async function keepLoading(place) {
  const fine = await load(place, place.dataset.fragment);
  const every = Number(place.dataset.every || 0);
  if (!fine || !every || place.querySelector("[data-done]")) return;
  setTimeout(() => keepLoading(place), every);
}

// --------------------------------------------------------------------------- scrolling the grid
function scrollCells() {
  const list = document.getElementById("cells");
  if (!list) return;
  const total = Number(list.dataset.total);
  const size = Number(list.dataset.size);
  const address = (start) => {
    const url = new URL(list.dataset.cells, location.href);
    url.searchParams.set("start", start);
    return url;
  };
  const waiting = new Map();

  // A page out of sight keeps its height and gives its pictures back.
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) fill(target);
      else empty(target);
    }
    extend();
  }, { rootMargin: "1500px" });
  const inSight = new IntersectionObserver(showPlace, { rootMargin: "-80px 0px -60% 0px" });

  function adopt(page) {
    page.dataset.full = "1";
    near.observe(page);
    inSight.observe(page);
    mark(page);
  }

  async function fill(page) {
    page.dataset.near = "1";
    if (page.dataset.full || waiting.has(page)) return;
    const stop = new AbortController();
    waiting.set(page, stop);
    try {
      const answer = await fetch(address(page.dataset.from), { signal: stop.signal });
      if (!answer.ok) return page.replaceChildren(said(await answer.text()));
      const parsed = new DOMParser().parseFromString(await answer.text(), "text/html");
      page.replaceChildren(...parsed.querySelector(".cells").children);
      page.dataset.full = "1";
      page.style.minHeight = "";
      mark(page);
    } catch (error) {
      if (error.name !== "AbortError") page.replaceChildren(said("the server does not answer"));
    } finally {
      waiting.delete(page);
      extend();
    }
  }

  function empty(page) {
    delete page.dataset.near;
    waiting.get(page)?.abort();
    if (!page.dataset.full) return;
    page.style.minHeight = `${page.offsetHeight}px`;
    page.replaceChildren();
    delete page.dataset.full;
  }

  function extend() {
    const pages = list.querySelectorAll(":scope > .cells");
    const last = pages[pages.length - 1];
    const next = Number(last.dataset.from) + size;
    if (next >= total || !last.dataset.near || !last.dataset.full) return;
    const page = document.createElement("div");
    page.className = "cells";
    page.dataset.from = next;
    page.style.minHeight = "600px";
    list.append(page);
    near.observe(page);
    inSight.observe(page);
  }

  // The address names the first page in sight, so that it can be shared.
  function showPlace(entries) {
    const shown = entries.find((entry) => entry.isIntersecting);
    if (!shown) return;
    const start = Number(shown.target.dataset.from);
    const url = new URL(location.href);
    if (start) url.searchParams.set("start", start);
    else url.searchParams.delete("start");
    history.replaceState(null, "", url);
    const scrub = document.getElementById("scrub");
    if (scrub) scrub.value = start;
    const at = document.getElementById("at");
    if (at) at.textContent = number(start);
  }

  adopt(list.querySelector(".cells"));
  const scrub = document.getElementById("scrub");
  if (scrub) {
    scrub.addEventListener("input", () => {
      document.getElementById("at").textContent = number(scrub.value);
    });
    scrub.addEventListener("change", () => {
      const url = new URL(location.href);
      url.searchParams.set("start", Math.floor(scrub.value / size) * size);
      location.assign(url);
    });
  }
}

// ------------------------------------------------------------------------------ ticks and files
const ticks = new Map();

function tickStore() {
  const list = document.getElementById("cells");
  return `seit:${list.dataset.store}:${list.dataset.split}`;
}

function mark(page) {
  for (const box of page.querySelectorAll(".tick")) box.checked = ticks.has(box.value);
}

function countTicks() {
  const place = document.getElementById("ticked");
  if (place) place.textContent = ticks.size ? `(${number(ticks.size)} ticked)` : "";
  sessionStorage.setItem(tickStore(), JSON.stringify([...ticks.keys()]));
}

function keepTicks() {
  const list = document.getElementById("cells");
  if (!list) return;
  for (const key of JSON.parse(sessionStorage.getItem(tickStore()) || "[]")) ticks.set(key, true);
  countTicks();
  list.addEventListener("change", (event) => {
    if (!event.target.matches(".tick")) return;
    if (event.target.checked) ticks.set(event.target.value, true);
    else ticks.delete(event.target.value);
    countTicks();
  });
  document.getElementById("untick").addEventListener("click", () => {
    ticks.clear();
    countTicks();
    mark(list);
  });
  document.getElementById("download").addEventListener("click", () => {
    const lines = [...ticks.keys()].filter((key) => key && !/\n|\r$/.test(key));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.map((key) => `${key}\n`).join("")]));
    link.download = "keys.txt";
    link.click();
    URL.revokeObjectURL(link.href);
  });
}

function sortAtOnce() {
  const form = document.querySelector("form.controls");
  if (!form) return;
  for (const control of form.querySelectorAll("select, input[type=checkbox]"))
    control.addEventListener("change", () => form.requestSubmit());
}

// ------------------------------------------------------------------------------- tokens, sliders
function showTokens() {
  const grid = document.querySelector(".tokens");
  if (!grid) return;
  const about = document.getElementById("token-about");
  const picture = about.querySelector("img");
  const tell = (event) => {
    const token = event.target.closest("button[data-id]");
    if (!token) return;
    about.querySelector("span").textContent =
      `id ${token.dataset.id}, row ${token.dataset.row}, column ${token.dataset.column}`;
    picture.src = `/code/${token.dataset.level}/${token.dataset.id}?v=${grid.dataset.store}`;
    picture.alt = `code ${token.dataset.id}`;
    picture.hidden = false;
  };
  grid.addEventListener("mouseover", tell);
  grid.addEventListener("focusin", tell);
  grid.addEventListener("click", (event) => {
    const token = event.target.closest("button[data-id]");
    if (token) location.assign(`/codebook?level=${token.dataset.level}&code=${token.dataset.id}`);
  });
}

function tryAugmentations() {
  const form = document.getElementById("try");
  if (!form) return;
  const picture = document.getElementById("tried");
  const trouble = document.getElementById("trouble");
  let timer = 0;
  async function show() {
    const values = new URLSearchParams(new FormData(form));
    const answer = await fetch(`${form.dataset.address}?${values}`);
    if (!answer.ok) {
      trouble.textContent = await answer.text();
      return;
    }
    trouble.textContent = "";
    picture.src = answer.url;
  }
  form.addEventListener("input", (event) => {
    const shown = event.target.parentElement.querySelector("output");
    if (shown) shown.textContent = event.target.value;
    clearTimeout(timer);
    timer = setTimeout(show, 150);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const seed = form.elements.seed;
    seed.value = Number(seed.value) + 1;
    show();
  });
}

keepTicks();
scrollCells();
sortAtOnce();
showTokens();
tryAugmentations();
loadParts();
