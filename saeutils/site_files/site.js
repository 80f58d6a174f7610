"use strict";
const root = document.documentElement;
const kept = (key, value) => {
  try {
    if (value !== undefined) localStorage.setItem(key, value);
    return localStorage.getItem(key);
  } catch { return null; }  // pages opened from a disk may not keep anything
};
root.dataset.theme = kept("theme")
  || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
root.classList.toggle("without-code", kept("code") === "off");

addEventListener("DOMContentLoaded", () => {
  const theme = document.querySelector("button.theme");
  const code = document.querySelector("button.code");
  const say = () => {
    theme.textContent = root.dataset.theme === "dark" ? "Light" : "Dark";
    if (code) code.textContent = root.classList.contains("without-code") ? "Show code" : "Hide code";
  };
  theme.addEventListener("click", () => {
    root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark";
    kept("theme", root.dataset.theme);
    say();
  });
  if (code) code.addEventListener("click", () => {
    kept("code", root.classList.toggle("without-code") ? "off" : "on");
    say();
  });
  say();
});
