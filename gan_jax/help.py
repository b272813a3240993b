"""What the commands say of themselves: an overview of all, the flags of one, and the versions."""

import importlib.metadata
import os
import platform
import sys

from gan_jax import __version__

SUMMARIES = {
    "train": "train a run, or go on where it stood (the default command)",
    "evaluate": "measure a trained run, or a folder of images",
    "sample": "write images of a trained run",
    "sweep": "train every combination of some settings and compare them",
    "config": "list the experiments, or print one's file to copy",
    "import": "make a run's folder of published weights",
    "export": "write a run's networks for other programs",
}
FLAGS = {
    "train": """\
  --config=NAME[:variant]      experiment, a name that the command config lists or a FILE.py; default digits_dcgan
  --workdir=DIR                the run's folder; default runs/<experiment>[_<variant>]
  --config.KEY=VALUE           override any key of the config, such as --config.optim.generator.learning_rate=1e-4
  --config.logs=NAME,NAME      tell wandb, mlflow or a class of your own what is logged; docs/commands.md
  --dry_run                    print parameters, FLOPs, memory, devices and data, and exit
  --profile=DIR                trace 16 to 32 steps into DIR once all is compiled, for XProf and TensorBoard
  --coordinator=HOST:PORT --num_processes=N --process_id=I   one process of several; what a launcher says (Slurm, Open
                               MPI, MPICH, Kubernetes, a TPU pod) may be left out; docs/multi_host.md
  --wait_seconds=N             how long to wait for the others; default 300""",
    "evaluate": """\
  --workdir=DIR                the run's folder
  --data=PATH                  where the run's data lie now, if they were moved; a=PATH,b=PATH of data with parts
  --metrics=NAME,NAME          such as fid50k_full, kid50k_full, pr50k3_full, is50k, ppl2_wend, swd16k, msssim10k;
                               or fd, kd, prdc, classes of --features and --samples (fid and kid are taken
                               for fd and kd where these are not Inception's, and reported by their features); modes,
                               of mixtures; obeyed, of what is drawn from captions or pictures that have labels; eqt,
                               eqt_frac, eqr, of stylegan3; pfid10k, sharpness. Default: the config's. docs/metrics.md
  --step=N|best                checkpoint, or the best one by the run's first metric; default: the newest
  --images=PATH                instead of the run's samples the images of a folder or .zip, compared with the run's
                               data (--workdir), with another folder or .zip (--reference=PATH) or with moments of a
                               file (--statistics); also l1, psnr, ssim, ms_ssim, psnr_y, ssim_y, pooled_psnr,
                               lpips_alex, lpips_vgg, image by image
  --resize=SIZE                with --images: images of other sizes, those of --reference too, become SIZE x SIZE:
                               their central square, resized by Lanczos' filter
  --out=FILE                   with --images: append the values to FILE as JSON lines
  --features=NAME              digits_classifier, inception, vgg16, dinov2_vitl14, random_inception, ...; default: the
                               config's, inception with --images
  --weights=PATH --download    a file or folder of weights (docs/metrics_weights.md), or fetch what is not there
  --preprocessing=tf1|pytorch_fid|clean   Inception's resize; default tf1, the official one
  --samples=N --batch_size=N --split=NAME --flip_reals   see config.evaluation in docs/metrics.md
  --border=N                   pixels of each side that psnr, ssim and their like leave out; papers take the scale
  --statistics=FILE.npz        the reals' moments from a file, as pytorch-fid has them
  --save_statistics=FILE.npz   write the reals' moments to a file
  --compare=RUN,RUN            print the newest values of several runs, and which of them do not compare""",
    "sample": """\
  --workdir=DIR --out=DIR      the run's folder, and where images go
  --seeds=0-63                 one image for each; also 1,5,9; of runs that translate, held-out examples
  --inputs=PATH                a picture, or a folder or .zip of such, for runs that translate, enlarge or fill pictures
  --captions=TEXT|FILE.txt     for runs that draw from captions: one, or a file with one a line; each with every seed,
                               default 0-7. Without it --seeds are held-out examples
  --masks=PATH                 of pictures whose holes are filled: a mask, or a folder or .zip of such by the pictures'
                               names, of their size, white in the hole
  --scale=2.5 --tile=SIDE      of enlarged pictures: how many times their sides, default the network's own; the side of
                               the tiles in which large ones are made, default as memory allows, 0 for none
  --format=png|jpg|webp|tiff --quality=1-100   of enlarged pictures; default that of each input, and 95
  --data=PATH                  where the run's data lie now, if they were moved; a=PATH,b=PATH of data with parts
  --direction=ab|ba            of a translation; default: the config's
  --labels=0,1,2               classes, or their names: cat,dog; for conditional runs
  --interpolate=FRAMES         an animation through the seeds and back to the first; FRAMES for each
  --interpolate_in=z|w         along great circles of z (default), or linearly in w; for models with styles
  --animation=gif|mp4          the animation's format, default gif; mp4 needs the extra `video` (imageio-ffmpeg)
  --fps=N                      its frames in a second, default 25; a GIF rounds them to hundredths of a second each
  --truncation=PSI[,CUTOFF]    styles moved towards their mean, in all layers or the first ones; for models with styles
  --noise=const|random|none    noise inputs, for models with such: the same for all (default), of each seed, or none
  --style_mixing=ROWS:COLUMNS[:LAYERS]   table of images of the seeds ROWS with the styles of the seeds COLUMNS in
                               LAYERS, such as 0-5:10-14:0-6; default the coarse ones, 0-6; for models with styles
  --save_dlatents              write the styles w beside the images, as dlatents.npz
  --dlatents=FILE.npz          images of styles w, (N, num_ws, w_size) or (N, w_size), instead of those of seeds
  --step=N|best                checkpoint, or the best one by the run's first metric; default: the newest""",
    "sweep": """\
  --config=NAME[:variant]      experiment, a name that the command config lists or a FILE.py; default digits_dcgan
  --workdir=DIR                the sweep's folder
  --config.KEY=VALUE           override any key of every run's config
  --sweep='config.KEY=FORM'    repeatable; FORM is a list 1,2,3 or log(1e-5,1e-3,5), linear(0,1,3), random(0,1,4),
                               lograndom(1e-5,1e-3,4), rounded where the key holds a whole number; values with
                               commas stand in brackets or quotes: (32,32),(64,64) or "fd,kd",fd
  --jobs=N                     runs at once; default 1; of slurm, tasks at once, default all
  --metric=NAME                by which to sort, or to choose; default: the config's first
  --seed=N                     of the random forms, and of what an engine draws
  --engine=local|optuna|slurm|pbt   all combinations here (default), a search by Optuna, all combinations as tasks of
                               a Slurm array, or population-based training; docs/sweeps.md. For optuna and pbt FORM may
                               be uniform(a,b) or loguniform(a,b), any number between two
  --trials=N                   of optuna: trials of all workers together; default 20, or a grid's size
  --sampler=tpe|random|grid|cmaes --pruner=none|median|halving   of optuna: what chooses, and what ends bad runs early
  --startup=N --warmup=IMAGES  of optuna: trials before the two decide by what they saw; images before a run is pruned
  --storage=URL --study=NAME   of optuna: sqlite:///FILE (default study.db in the folder), journal:FILE or
                               postgresql://...; the study's name, default the folder's
  --slurm=OPTIONS              of slurm: what sbatch is asked for, for each task, such as a GPU and some hours
  --task=INDEX                 of slurm: train one combination; the batch script gives it
  --population=N --rounds=N    of pbt: members, default 8; rounds in which they train, default 5""",
    "config": """\
  NAME                         an experiment; without it the names of all, and what they are""",
    "import": """\
  --from=FILE                  .pkl of stylegan2-ada-pytorch, stylegan3 or R3GAN; .pth or .safetensors of their tensors;
                               .pt of rosinality's stylegan2-pytorch; .pth of StudioGAN's StyleGAN2; .pth of ESRGAN,
                               Real-ESRGAN, pix2pix, CycleGAN, CUT and LaMa (.ckpt too), several of one run as
                               FILE,FILE; .safetensors that export wrote. Nothing in the file is run
  --workdir=DIR                the folder to make
  --config=NAME[:variant]      experiment for what the file does not tell: data, losses, optimizers
  --config.KEY=VALUE           override any key, such as --config.generator.conv_clamp=256""",
    "export": """\
  --workdir=DIR --out=FILE     the run's folder, and the file to write
  --format=safetensors|stablehlo   the networks' arrays, the averaged ones where there are; or the averaged generator as
                               a program for any batch size on CPU, CUDA and TPU
  --truncation=PSI[,CUTOFF]    of the program; for models with styles
  --step=N|best                checkpoint, or the best one by the run's first metric; default: the newest""",
}
EXIT_CODES = (
    "exit codes: 0 done, 1 the run diverged or failed, 2 a mistake in flags, config or files,\n"
    "            75 stopped by a signal, the same command goes on"
)


def overview() -> str:
    """All commands with a line each, and how to get more."""
    commands = "\n".join(f"  {name:10} {line}" for name, line in SUMMARIES.items())
    program = _program()
    return (
        f"usage: {program} [COMMAND] [--flag=value ...]\n\n{commands}\n\n"
        f"{program} COMMAND --help   the flags of one command\n{program} --version        the versions\n\n"
        f"{EXIT_CODES}\n"
    )


def of(command: str) -> str:
    """What one command does, and its flags."""
    usage = f"usage: {_program()} {command} {'[NAME]' if command == 'config' else '[--flag=value ...]'}"
    return f"{usage}\n\n{SUMMARIES[command]}\n\n{FLAGS[command]}\n\n{EXIT_CODES}\n"


def version() -> str:
    """The versions of this package, of JAX, which is not imported for it, and of Python."""
    return f"gan_jax {__version__} (jax {importlib.metadata.version('jax')}, Python {platform.python_version()})\n"


def _program() -> str:
    """How this program was started, as one would type it."""
    return "python launch.py" if os.path.basename(sys.argv[0]) == "launch.py" else "gan-jax"
