// Turns pages of images, filters them by prompt and sorts them. See gallery.py for the data.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("images-data").textContent);
  const root = byId("images"), status = byId("images-status");
  const form = document.querySelector("form.controls");
  const turning = [...document.querySelectorAll("nav.controls")];
  const searched = data.prompts.map((prompt) => prompt.normalize("NFC").toLowerCase());
  const all = data.prompt.map((_, image) => image);
  let found = all, page = 0, waiting = 0;

  function matching() {
    const words = (form.elements.filter?.value ?? "").normalize("NFC").toLowerCase().split(/\s+/);
    const kept = searched.map((prompt) => words.every((word) => prompt.includes(word)));
    return all.filter((image) => kept[data.prompt[image]]);
  }

  // Equal values keep the order of drawing; images without the value come last.
  function sorted(images) {
    const [key, direction] = form.elements.order.value.split(" ");
    if (key === "order") return images;
    const sign = direction === "up" ? 1 : -1;
    const value = (image) => data[key][key === "vendi" ? data.prompt[image] : image];
    const known = images.filter((image) => value(image) !== null);
    known.sort((a, b) => sign * (value(a) - value(b)));
    return [...known, ...images.filter((image) => value(image) === null)];
  }

  function show(place, url, alt) {
    if (!url) return place.remove();
    place.querySelector("a").href = url;
    const picture = place.querySelector("img");
    picture.alt = alt;
    picture.src = url;
  }

  function card(image, alone) {
    const item = byId("image").content.firstElementChild.cloneNode(true);
    const prompt = data.prompts[data.prompt[image]], seed = `seed ${data.seed[image]}`;
    const places = [...item.querySelectorAll(".shown")];
    if (places.length) show(places.pop(), data.guided[image], `${prompt}, ${seed}, guided`);
    if (places.length) {
      const same = data.change && data.change[image] !== null ? `, ${seed}` : "";
      show(places.pop(), data.unguided[image], `${prompt}${same}, without guidance`);
    }
    const caption = item.querySelector("figcaption");
    caption.textContent = data.caption[image];
    if (alone) {
      const of = document.createElement("span");
      of.className = "of";
      of.textContent = prompt;
      caption.prepend(of);
    }
    item.classList.toggle("changed", Boolean(data.changed?.[image]));
    return item;
  }

  // Sections of prompts where their images follow each other, else one list.
  function sections(images) {
    const parts = [];
    const alone = !/^(order|vendi) /.test(form.elements.order.value);
    let of = null, list;
    for (const image of images) {
      if (of === null || (!alone && data.prompt[image] !== of)) {
        of = data.prompt[image];
        const part = byId("group").content.firstElementChild.cloneNode(true);
        list = part.querySelector("ul");
        if (alone) part.replaceChildren(part.querySelector(".panel"));
        else {
          part.querySelector("h3").textContent = data.prompts[of];
          part.querySelector(".note").textContent = data.words[of];
        }
        parts.push(part);
      }
      list.append(card(image, alone));
    }
    return parts;
  }

  const counted = (number) => number.toLocaleString("en");

  function say(first, last) {
    const total = all.length === found.length ? counted(all.length)
      : `${counted(found.length)} found, ${counted(all.length)} in all`;
    status.textContent = found.length
      ? `Images ${counted(first + 1)} to ${counted(last)} of ${total}.`
      : "No prompt has all of these words.";
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(found.length / data.size));
    page = Math.min(Math.max(0, page), pages - 1);
    const first = page * data.size, last = Math.min(found.length, first + data.size);
    root.replaceChildren(...sections(found.slice(first, last)));
    turn(pages);
    say(first, last);
  }

  function turn(pages) {
    for (const nav of turning) {
      nav.hidden = pages < 2;
      const [number, of] = [nav.querySelector("input"), nav.querySelector("span")];
      number.value = page + 1;
      number.max = pages;
      of.textContent = `of ${counted(pages)}`;
      for (const button of nav.querySelectorAll("button")) {
        const end = button.value === "1" ? pages - 1 : 0;
        button.setAttribute("aria-disabled", String(page === end));
      }
    }
  }

  function find() {
    found = sorted(matching());
    page = 0;
    draw();
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(find, 150);
  });
  for (const nav of turning) {
    nav.addEventListener("click", ({ target }) => {
      if (target.type !== "button" || target.getAttribute("aria-disabled") === "true") return;
      page += Number(target.value);
      draw();
      if (nav !== turning[0]) above();
    });
    nav.addEventListener("change", ({ target }) => {
      page = Math.round(Number(target.value) || 1) - 1;
      draw();
      if (nav !== turning[0]) above();
    });
  }

  // Whoever turns the page below its images goes on at the top of the next ones.
  function above() {
    root.focus({ preventScroll: true });
    root.scrollIntoView();
  }

  turn(Math.ceil(all.length / data.size));
  say(0, Math.min(all.length, data.size));
})();
