"use strict";
const main = document.querySelector("main");
const note = document.querySelector("#live");
let failures = 0;
async function refresh() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/state", { headers: { accept: "text/html" }, cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      main.replaceChildren(...page.querySelector("main").childNodes);
      failures = 0;
    } catch {
      failures += 1;
    }
    note.textContent = failures ? "no answer" : "live";
    note.className = failures ? "pill bad" : "pill good";
  }
  setTimeout(refresh, failures ? 5000 : 2000);
}
setTimeout(refresh, 2000);
