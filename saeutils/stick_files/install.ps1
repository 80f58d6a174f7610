# Installs from this folder alone, without network:
#   powershell -ExecutionPolicy Bypass -File install.ps1 [Folder]
param([string]$Folder = (Join-Path $HOME "sae-companion"))
$ErrorActionPreference = "Stop"
$wanted = "@PYTHON@"
$wheels = Join-Path (Join-Path $PSScriptRoot "wheels") "windows"
function Stop-With([string]$text) { Write-Host "error: $text"; exit 1 }
function Assert-Done([string]$what) { if ($LASTEXITCODE -ne 0) { Stop-With "$what did not finish, see above" } }

if (-not (Test-Path $wheels)) {
  Stop-With "no wheels for Windows on this stick: build it with ``make stick WINDOWS=1``"
}
if (Test-Path $Folder) { Stop-With "$Folder is there already: name another folder, install.ps1 FOLDER" }
$launcher = Get-Command py -ErrorAction SilentlyContinue
if ($launcher) { $python = @("py", "-$wanted") } else { $python = @("python") }
$more = @($python | Select-Object -Skip 1)
$version = & $python[0] @more -c "import sys; print('%d.%d' % sys.version_info[:2])"
if ($version -ne $wanted) {
  Stop-With "Python $wanted not found: the wheels fit no other version; install it from this stick's owner or python.org"
}
$drive = (Split-Path -Qualifier ([IO.Path]::GetFullPath($Folder))).TrimEnd(":")
$free = [math]::Floor((Get-PSDrive $drive).Free / 1MB)
if ($free -lt @NEEDED_WINDOWS_MB@) {
  Stop-With "drive $drive has $free MB free: @NEEDED_WINDOWS_MB@ MB are needed; name a folder on another drive"
}

Write-Host "Copying notebooks and results to $Folder"
Copy-Item -Recurse (Join-Path $PSScriptRoot "companion") $Folder
Write-Host "Setting up $Folder\.venv; some minutes, without network"
$environment = Join-Path $Folder ".venv"
& $python[0] @more -m venv $environment
Assert-Done "venv"
$inside = Join-Path (Join-Path $environment "Scripts") "python.exe"
$pip = @("-m", "pip", "--isolated", "--disable-pip-version-check", "--quiet", "install", "--no-index", "--no-deps")
& $inside @pip --require-hashes --find-links $wheels -r (Join-Path $wheels "requirements.txt")
Assert-Done "pip"
& $inside @pip --no-build-isolation -e $Folder
Assert-Done "pip"
$settings = Join-Path $environment "share\jupyter\lab\settings"
New-Item -ItemType Directory -Force $settings | Out-Null  # JupyterLab would ask about news, which needs a network
'{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' | Out-File -Encoding ascii (Join-Path $settings "overrides.json")
Write-Host "Done. Open the notebooks:"
Write-Host "  cd $Folder; .venv\Scripts\python -m jupyterlab --notebook-dir=. notebooks\00_tour.ipynb"
