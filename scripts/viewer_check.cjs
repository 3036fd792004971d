// Plays an MCP host around the viewer's page: node viewer_check.cjs FOLDER CHROMIUM SCREENSHOTS
// FOLDER holds page.html and results of tools as JSON. One line of JSON a check: {check, ok, said}.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const { chromium } = require("playwright-core");

const [folder, executablePath, screenshots] = process.argv.slice(2);
const say = (check, ok, said = "") => console.log(JSON.stringify({ check, ok: Boolean(ok), said: String(said) }));
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

const HOST = `<!doctype html><body style="margin:0"><iframe id="view" sandbox="allow-scripts" style="width:680px;height:1100px;border:0"></iframe>
<script>
  window.heard = [];
  window.theme = "light";
  const view = document.getElementById("view");
  window.send = (message) => view.contentWindow.postMessage({ jsonrpc: "2.0", ...message }, "*");
  window.addEventListener("message", (event) => {
    if (event.source !== view.contentWindow) return;
    const message = event.data;
    window.heard.push(message);
    if (message.method === "ui/initialize") window.send({ id: message.id, result: {
      protocolVersion: message.params.protocolVersion, hostInfo: { name: "check", version: "1" },
      hostCapabilities: { serverResources: {} }, hostContext: { theme: window.theme } } });
    if (message.method === "resources/read") window.send({ id: message.id, error: { code: -32601, message: "not here" } });
  });
</script></body>`;

async function main() {
  const browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
  const page = await browser.newPage({ viewport: { width: 700, height: 1120 } });
  const problems = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (line) => line.type() === "error" && problems.push(line.text()));
  page.on("request", (request) => /^https?:/.test(request.url()) && problems.push(`asked ${request.url()}`));
  const html = fs.readFileSync(path.join(folder, "page.html"), "utf8");

  const open = async (tool) => {
    await page.goto("about:blank");
    await page.setContent(HOST);
    await page.evaluate((text) => { document.getElementById("view").srcdoc = text; }, html);
    await page.waitForFunction(() => window.heard.some((m) => m.method === "ui/notifications/initialized"));
    const params = JSON.parse(fs.readFileSync(path.join(folder, `${tool}.json`), "utf8"));
    await page.evaluate((result) => window.send({ method: "ui/notifications/tool-result", params: result }), params);
    const view = page.frames().find((frame) => frame !== page.mainFrame());
    await view.waitForFunction(() => !document.getElementById("stage").hidden && document.getElementById("after").complete);
    return view;
  };
  const shot = (name) => page.screenshot({ path: path.join(screenshots, `${name}.png`) });

  for (const tool of ["image_gen", "quality_eval", "mask_gen"]) {
    const view = await open(tool);
    const facts = await view.locator("#facts").innerText();
    const sizes = await view.evaluate(() => ["before", "after"].map((id) => document.getElementById(id).naturalWidth));
    say(`${tool}: both pictures shown`, sizes[0] > 100 && sizes[0] === sizes[1], sizes.join(" and ") + " px wide");
    say(`${tool}: figures shown`, /Score|Changed area/.test(facts), facts.replace(/\s+/g, " ").slice(0, 120));
    await shot(tool);
  }

  const view = await open("mask_gen");
  const clip = () => view.locator("#after-box").evaluate((box) => box.style.clipPath);
  const box = await view.locator("#split").boundingBox();
  const before = await clip();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.1, box.y + box.height / 2, { steps: 5 });
  await page.mouse.up();
  const after = await clip();
  const share = parseFloat(after.match(/([\d.]+)%/)[1]);
  say("slider follows the mouse", before !== after && share < 20, `${before} -> ${after}`);
  await view.locator("#split").focus();
  await page.keyboard.press("Home");
  say("slider follows the keyboard", (await clip()).includes(" 0%)"), await clip());

  const red = async () => {
    const area = await view.locator("#stage").boundingBox();
    const picture = (await page.screenshot({ clip: area })).toString("base64");
    return page.evaluate(async (data) => {
      const image = new Image();
      image.src = `data:image/png;base64,${data}`;
      await image.decode();
      const canvas = new OffscreenCanvas(image.width, image.height);
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      const pixels = context.getImageData(0, 0, image.width, image.height).data;
      let count = 0;
      for (let i = 0; i < pixels.length; i += 4) count += pixels[i] > 170 && pixels[i + 1] < 90 && pixels[i + 2] < 140;
      return count;
    }, picture);
  };
  await view.locator("#opacity").fill("100");
  const full = await red();
  await shot("mask_full");
  await view.locator("#opacity").fill("0");
  const none = await red();
  await shot("mask_none");
  say("mask overlay follows its opacity", full > 20 && none < full / 10, `${full} red pixels at 100%, ${none} at 0%`);

  await page.evaluate(() => window.send({ method: "ui/notifications/host-context-changed", params: { theme: "dark" } }));
  await view.waitForFunction(() => document.documentElement.dataset.theme === "dark");
  await view.locator("#opacity").fill("60");
  await shot("dark");
  say("theme follows the host", true, "dark");
  await page.evaluate(() => window.send({ method: "ui/notifications/tool-result",
    params: { isError: true, content: [{ type: "text", text: "<img src=x onerror=alert(1)> refused" }] } }));
  await view.waitForFunction(() => document.getElementById("note").textContent.includes("refused"));
  say("a failed call is told as text", (await view.locator("#note img").count()) === 0, "no markup from the result");
  say("nothing asked of the network, no script error", problems.length === 0, problems.join("; "));
  await browser.close();
}

main().catch((error) => {
  say("the page could be driven", false, error.message);
  process.exit(1);
});
