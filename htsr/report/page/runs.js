const runFigures = (/** @type {number} */ row) => /** @type {any[]} */ ([]);
const runsOverview = () => null;
const startRuns = () => {};
