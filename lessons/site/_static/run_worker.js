// A worker in which the cells of a lesson run. It posts {state}, {ready}, {kind, content, number} as
// a cell shows something, {done, well} behind a cell, and {broken} if Python cannot be loaded.

let python = null, run = null;

async function fetched(address) {
    const answer = await fetch(address);
    if (!answer.ok) throw new Error(`${address}: ${answer.status} ${answer.statusText}`);
    return answer;
}

async function load({ pyodide, packages, archive }) {
    postMessage({ state: "Loading Python" });
    const { loadPyodide } = await import(`${pyodide}pyodide.mjs`);
    const env = { HOME: "/home/pyodide", MPLBACKEND: "Agg" };
    python = await loadPyodide({ indexURL: pyodide, env });
    postMessage({ state: "Loading NumPy and matplotlib" });
    const failed = [];
    await python.loadPackage(packages, {
        messageCallback() {}, errorCallback: (text) => failed.push(text),
    });
    if (failed.length) throw new Error(failed.join("\n"));
    const packed = await (await fetched(archive)).arrayBuffer();
    python.unpackArchive(packed, "zip", { extractDir: "/lesson" });
    const cells = await (await fetched(new URL("cells.py", import.meta.url))).text();
    python.FS.writeFile("/lesson/cells.py", cells);
    python.runPython("import sys; sys.path.insert(0, '/lesson')");
    python.runPython("import matplotlib.font_manager");  // it takes long, and says so only here
    run = python.pyimport("cells").run;
    postMessage({ ready: true });
}

onmessage = async ({ data }) => {
    try {
        if (data.pyodide) return await load(data);
        const show = (kind, content, number) => postMessage({ kind, content, number });
        postMessage({ done: true, well: run(data.source, data.name, python.globals, show) });
    } catch (error) {
        postMessage({ broken: error.message });
    }
};
