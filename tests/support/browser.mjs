// A browser for the page's tests: commands as lines of JSON on stdin, answers on stdout.
import {createRequire} from "node:module";
import {createInterface} from "node:readline";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

const require = createRequire(path.join(process.env.LSTMCONVERT_BROWSER, "x.js"));
const {chromium} = require("playwright-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const profile = fs.mkdtempSync(path.join(os.tmpdir(), "lstmconvert-browser-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.LSTMCONVERT_CHROMIUM || "/usr/bin/chromium",
  headless: true,
  bypassCSP: false,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
let page, log, requests;
const at = async ({selector, nth = 0}) => {
  const element = page.locator(selector).nth(nth);
  await element.scrollIntoViewIfNeeded();
  return element;
};
const commands = {
  async open({file, width = 1600, height = 1000, theme = "light", script = true}) {
    await page?.close();
    page = await context.newPage();
    log = [];
    requests = [];
    page.on("console", message => log.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", error => log.push(`error: ${error.message}`));
    page.on("dialog", dialog => { log.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("request", request => { if (!request.url().startsWith("data:")) requests.push(request.url()); });
    await page.setViewportSize({width, height});
    await page.emulateMedia({colorScheme: theme, media: "screen"});
    await page.goto(`file://${file}`);
    if (script) await page.waitForFunction(() => document.documentElement.dataset.ready, null, {timeout: 120000});
  },
  size: ({width, height = 1000}) => page.setViewportSize({width, height}),
  media: options => page.emulateMedia(options),
  eval: ({code}) => page.evaluate(code),
  async hover(options) {
    const element = await at(options);
    if (options.x === undefined) return element.hover();
    const box = await element.boundingBox();
    return page.mouse.move(box.x + options.x, box.y + options.y);
  },
  away: () => page.mouse.move(2, 2),
  click: async options => (await at(options)).click(),
  focus: async options => (await at(options)).focus(),
  press: ({key}) => page.keyboard.press(key),
  read: () => page.evaluate(() => {
    const bar = document.querySelector(".out");
    return bar.hidden ? null : [...bar.children].map(child => child.textContent);
  }),
  log: () => ({log, requests}),
  // The page's policy forbids foreign scripts; axe is run in a world of its own.
  async axe() {
    const session = await context.newCDPSession(page);
    const {frameTree} = await session.send("Page.getFrameTree");
    const {executionContextId} = await session.send("Page.createIsolatedWorld", {frameId: frameTree.frame.id});
    await session.send("Runtime.evaluate", {expression: axe, contextId: executionContextId});
    const {result, exceptionDetails} = await session.send("Runtime.evaluate", {
      expression: "axe.run(document).then(found => JSON.stringify(found.violations.map(one => [one.id, one.nodes.length, one.nodes[0].html.slice(0, 300), one.nodes[0].failureSummary])))",
      contextId: executionContextId, awaitPromise: true, returnByValue: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description || exceptionDetails.text);
    return JSON.parse(result.value);
  },
  shot: ({file, full = false}) => page.screenshot({path: file, fullPage: full}),
  pdf: ({file}) => page.pdf({path: file, printBackground: true, format: "A4", landscape: true}),
};
for await (const line of createInterface({input: process.stdin})) {
  const {command, ...options} = JSON.parse(line);
  try {
    const answer = await commands[command](options);
    console.log(JSON.stringify({answer: answer === undefined ? null : answer}));
  } catch (error) {
    console.log(JSON.stringify({error: String(error)}));
  }
}
await context.close();
fs.rmSync(profile, {recursive: true, force: true});
