"use strict";

// Keeps the table up to date and cancels without leaving the page. Without this script the page works by its plain forms.

const POLL_MILLISECONDS = 1000;
const ENDED = ["completed", "cancelled", "timed_out", "failed", "lost"];

const table = document.querySelector("#reports");
const news = document.querySelector("#news");

function show(operation) {
  const row = table.querySelector(`tr[data-id="${CSS.escape(operation.id)}"]`);
  if (row === null) return;
  const status = row.querySelector(".status");
  const ended = ENDED.includes(operation.status);
  if (ended && status.textContent !== operation.status) {
    news.textContent = `${operation.name}: ${operation.status}`;
  }
  status.textContent = operation.status;
  const { message, current, total } = operation.progress ?? {};
  const bar = row.querySelector("progress");
  bar.max = total || 1;
  bar.value = current ?? 0;
  row.querySelector(".message").textContent = message ?? "";
  if (ended) row.querySelector("form.cancel")?.remove();
}

async function poll() {
  let live = true;
  try {
    const answer = await fetch(`${table.dataset.jobsUrl}?kind=job&limit=20`);
    if (answer.ok) {
      const { operations } = await answer.json();
      operations.forEach(show);
      live = operations.some((operation) => !ENDED.includes(operation.status));
    }
  } catch (error) {
    console.warn("the server does not answer; trying again", error);
  }
  if (live) setTimeout(poll, POLL_MILLISECONDS);
}

async function cancel(event) {
  if (!event.target.matches("form.cancel")) return;
  event.preventDefault();
  const { id } = event.target.closest("tr").dataset;
  const answer = await fetch(`${table.dataset.jobsUrl}/${encodeURIComponent(id)}/cancel`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ message: "cancelled on the page", wait_seconds: 2 }),
  });
  const { operation } = await answer.json();
  if (operation) show(operation); // also when it had ended before
}

if (table !== null) {
  table.addEventListener("submit", cancel);
  poll();
}
