// Opens the page in a headless Chromium, waits until every panel has drawn, and takes a picture of the whole.
//     node shot.mjs CHROMIUM URL WIDTH HEIGHT PICTURE       what each panel shows goes to stdout as JSON; exit 1 on any error
import puppeteer from 'puppeteer-core';

const [executablePath, url, width, height, path] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--hide-scrollbars'], headless: true });
const errors = [];
try {
  const page = await browser.newPage();
  await page.setViewport({ width: Number(width), height: Number(height) });
  page.on('pageerror', (error) => errors.push(String(error.stack ?? error)));
  page.on('console', (said) => said.type() === 'error' && said.text().startsWith('PANEL') && errors.push(said.text()));
  page.on('requestfailed', (request) => errors.push(`${request.url()}: ${request.failure()?.errorText}`));
  await page.goto(url, { waitUntil: 'networkidle0', timeout: 60_000 });
  await page.waitForFunction(() => {
    const panels = [...document.querySelectorAll('.panel')];
    return panels.length > 0 && panels.every((panel) => panel.dataset.done === 'true');
  }, { timeout: 30_000 }).catch((error) => errors.push(String(error)));
  await new Promise((done) => setTimeout(done, 1500));
  // Fewer shades make a much smaller file, and look the same.
  await page.evaluate(() => {
    const shades = Array.from({ length: 32 }, (_, shade) => (shade / 31).toFixed(3)).join(' ');
    const steps = ['R', 'G', 'B'].map((part) => `<feFunc${part} type="discrete" tableValues="${shades}"/>`).join('');
    const few = `<filter id="few" color-interpolation-filters="sRGB"><feComponentTransfer>${steps}</feComponentTransfer></filter>`;
    document.body.insertAdjacentHTML('beforeend', `<svg width="0" height="0" style="position: absolute">${few}</svg>`);
    document.getElementById('board').style.filter = 'url(#few)';
  });
  await page.screenshot({ path });
  const shown = await page.evaluate(() => [...document.querySelectorAll('.panel')].map((panel) => ({
    title: panel.dataset.title, text: panel.innerText, empty: panel.querySelector('.empty') !== null,
    canvases: panel.querySelectorAll('canvas').length,
  })));
  console.log(JSON.stringify({ shown, errors }));
} finally {
  await browser.close();
}
process.exitCode = errors.length ? 1 : 0;
