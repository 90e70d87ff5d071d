// Lists the pages that contain every word of the query, each with the text around the first word.
const query = new URLSearchParams(location.search).get("q") || "";
const words = query.toLowerCase().split(/\s+/).filter(Boolean);
const results = document.getElementById("search-results");
document.querySelector("input[name=q]").value = query;
for (const page of PAGES) {
  const text = page.text.toLowerCase();
  if (!words.length || !words.every((word) => text.includes(word))) continue;
  const start = Math.max(0, text.indexOf(words[0]) - 60);
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = page.url;
  link.textContent = `${page.title} (${page.url})`;
  item.append(link, document.createElement("br"), `… ${page.text.slice(start, start + 200)} …`);
  results.append(item);
}
if (!results.children.length) results.textContent = "No page contains all of these words.";
