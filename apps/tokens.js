// The tokens of an output (see `tokens` in markup.py): pointing at one, or moving to it with the arrow keys, shows its
// probability and what else was likely. A click, a tap or Enter keeps that open; where the tokens are a candidate's, what
// else was likely can then be clicked, and the server goes on from there. `element`, `trigger` and `watch` are gradio's.
const card = document.createElement("div");
card.className = "token-card";
card.id = `token-card-${element.id}`;
card.setAttribute("role", "status");
card.hidden = true;
document.body.append(card);
let current = null;
let shown = null; // what the card was made of
let kept = false;

const share = (nats) => {
  const percent = 100 * Math.exp(Math.min(nats, 0));
  if (percent >= 99.5) return "over 99%";
  return percent < 0.0001 ? "under 0.0001%" : `${percent.toPrecision(2)}%`;
};

const add = (parent, tag, text, name) => {
  const child = document.createElement(tag);
  child.textContent = text;
  if (name) child.className = name;
  parent.append(child);
  return child;
};

function show(token, keep) {
  const [text, logprob, likely] = JSON.parse(token.dataset.token);
  const row = token.closest(".tokens").dataset.row;
  current?.removeAttribute("data-open");
  current = token;
  shown = token.dataset.token;
  kept = keep;
  token.dataset.open = "";
  card.replaceChildren();
  const head = add(card, "div", "", "head");
  add(head, "code", text);
  add(head, "b", share(logprob));
  add(head, "span", `log-probability −${Math.abs(logprob).toFixed(2)}`);
  likely.forEach(([other, nats, chosen, whole], number) => {
    const line = add(card, keep && row !== undefined && whole && !chosen ? "button" : "div", "", "line");
    add(line, "code", other);
    add(line, "span", share(nats), "share");
    add(add(line, "span", "", "bar"), "span", "").style.width = `${100 * Math.exp(Math.min(nats, 0))}%`;
    if (chosen) line.classList.add("chosen");
    if (line.tagName === "BUTTON") {
      line.type = "button";
      line.title = "Go on from here with this one";
      line.onclick = () => {
        const place = Number(token.dataset.place);
        hide();
        trigger("branch", { row: Number(row), position: place, alternative: number });
      };
    }
  });
  if (row !== undefined) {
    add(card, "p", keep ? "Click one to go on from there." : "Click the token to go on from another.");
  }
  card.classList.toggle("kept", keep);
  card.hidden = false;
  const [from] = token.getClientRects(); // of a token on two lines, where it begins
  const box = token.getBoundingClientRect();
  const left = Math.min(from.left, document.documentElement.clientWidth - card.offsetWidth - 8);
  const below = box.bottom + card.offsetHeight + 8 < innerHeight || box.top < card.offsetHeight + 8;
  card.style.left = `${Math.max(8, left) + scrollX}px`;
  card.style.top = `${(below ? box.bottom + 4 : box.top - card.offsetHeight - 4) + scrollY}px`;
}

function hide() {
  card.hidden = true;
  current?.removeAttribute("data-open");
  current = null;
  kept = false;
}

const tokenOf = (event) => event.target.closest?.(".token");

element.addEventListener("pointerover", (event) => {
  if (kept || event.pointerType === "touch") return;
  const token = tokenOf(event);
  if (token) show(token, false);
  else hide();
});
element.addEventListener("pointerleave", () => kept || hide());
element.addEventListener("focusin", (event) => {
  const token = tokenOf(event);
  if (token && token !== current) show(token, false);
});
element.addEventListener("focusout", (event) => card.contains(event.relatedTarget) || hide());
element.addEventListener("click", (event) => {
  const take = event.target.closest("button[data-take]");
  if (take) {
    hide();
    trigger("take", { row: Number(take.dataset.take) });
    document.querySelector("#write-go")?.focus(); // Enter writes on
    return;
  }
  const token = tokenOf(event);
  if (token) {
    token.focus();
    show(token, true);
  }
});
element.addEventListener("keydown", (event) => {
  const token = tokenOf(event);
  if (!token) return;
  const all = [...token.closest(".tokens").querySelectorAll(".token")];
  const at = all.indexOf(token);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    all[Math.max(0, Math.min(to, all.length - 1))].focus();
  } else if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    show(token, true);
    card.querySelector("button")?.focus();
  } else if (event.key === "Escape") {
    hide();
  }
});
card.addEventListener("keydown", (event) => {
  const lines = [...card.querySelectorAll("button")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape") {
    const token = current;
    token?.focus();
    hide();
  } else if (step) {
    event.preventDefault();
    lines.at((lines.indexOf(document.activeElement) + step) % lines.length)?.focus();
  }
});
card.addEventListener("focusout", (event) => {
  if (!card.contains(event.relatedTarget) && !element.contains(event.relatedTarget)) hide();
});
document.addEventListener("pointerdown", (event) => {
  if (kept && !card.contains(event.target) && !tokenOf(event)) hide();
});
watch("value", () => {
  // while more is written the tokens before it stay, as elements too; then their places hold others
  if (!current) return;
  if (!current.isConnected || current.dataset.token !== shown) hide();
  else current.dataset.open = "";
});
